# Sends a visible value in several mime types.

# Prints a value as R's top level does, and sends the printed text.
show_value <- function(value, main) {
  if (sink.number() > 0L) {
    # The user has redirected R's output, so values are printed to the same place.
    print_value(value)
    return()
  }
  text <- printed(value)
  # Some values print by drawing (lattice): the image is the result.
  send_plots()
  if (!nzchar(text)) return()
  data <- list(`text/plain` = text)
  if (is.data.frame(value)) data$`text/html` <- tryCatch(allowInterrupts(html_table(value)), error = function(e) NULL)
  if (length(formats)) data <- utils::modifyList(data, tryCatch(allowInterrupts(further_forms(value)), error = function(e) list()))
  send_result(data, main)
}

# Prints in an environment below the user's, so that methods defined by the user are found.
print_value <- function(value) {
  scope <- list2env(list(x = value, print = print, show = methods::show), parent = globalenv())
  # Interrupts are allowed only here: at another point one would leave R's output redirected to the buffer.
  allowInterrupts(evaluate_in(if (isS4(value)) quote(show(x)) else quote(print(x)), scope))
}

printed <- function(value) {
  buffer <- rawConnection(raw(), "wb")
  sink(buffer)
  depth <- sink.number()
  on.exit({
    while (sink.number() >= depth) sink()
    close(buffer)
  })
  print_value(value)
  bytes <- rawConnectionValue(buffer)
  end <- length(bytes)
  if (end && bytes[end] == charToRaw("\n")) bytes <- bytes[-end]
  text <- rawToChar(bytes)
  Encoding(text) <- "UTF-8"
  as_utf8(text)
}

MAX_ROWS <- 60L
MAX_COLUMNS <- 30L

html_table <- function(frame) {
  shown <- frame[seq_len(min(nrow(frame), MAX_ROWS)), seq_len(min(ncol(frame), MAX_COLUMNS)), drop = FALSE]
  cells <- escape_html(trimws(as.matrix(format(shown))))
  row <- function(name, cells, tag) {
    cells <- if (length(cells)) paste0("<", tag, ">", cells, "</", tag, ">", collapse = "")
    paste0("<tr><th>", name, "</th>", cells, "</tr>")
  }
  body <- vapply(seq_len(nrow(shown)), function(i) row(escape_html(rownames(shown)[i]), cells[i, ], "td"), "")
  as_utf8(paste(c(
    "<table>",
    "<thead>", row("", escape_html(colnames(cells)), "th"), "</thead>",
    "<tbody>", body, "</tbody>",
    "</table>",
    if (any(dim(shown) < dim(frame))) sprintf("<p>%d rows, %d columns</p>", nrow(frame), ncol(frame))
  ), collapse = "\n"))
}

escape_html <- function(text) {
  text[] <- gsub("&", "&amp;", text, fixed = TRUE)
  text[] <- gsub("<", "&lt;", text, fixed = TRUE)
  text[] <- gsub(">", "&gt;", text, fixed = TRUE)
  text
}
