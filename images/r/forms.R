# Further forms of a value, for notebooks that ask for them: tables and plain vectors as Markdown and LaTeX.

formats <- character() # the mime types that the request asks for

further_forms <- function(value) {
  if (is.object(value) && !is.data.frame(value)) return(list())
  forms <- if (is.data.frame(value) || is.matrix(value)) {
    cells <- table_cells(value)
    list(`text/html` = html_table(value), `text/markdown` = markdown_table(cells), `text/latex` = latex_table(cells))
  } else if (is.atomic(value) && is.null(names(value)) && is.null(dim(value)) && length(value)) {
    items <- vapply(utils::head(value, MAX_ROWS), function(item) if (is.character(item)) sQuote(item, FALSE) else format(item), "")
    list(`text/html` = html_items(items), `text/markdown` = markdown_items(items), `text/latex` = latex_items(items))
  }
  lapply(forms[intersect(names(forms), c("text/html", formats))], as_utf8)
}

# The cells as text, with row names in the first column and column names in the first row.
table_cells <- function(value) {
  shown <- as.data.frame(value[seq_len(min(nrow(value), MAX_ROWS)), seq_len(min(ncol(value), MAX_COLUMNS)), drop = FALSE])
  cells <- trimws(as.matrix(format(shown)))
  rbind(c("", colnames(cells)), cbind(rownames(shown), cells))
}

markdown_table <- function(cells) {
  cells[] <- gsub("|", "\\|", gsub("\n", " ", cells, fixed = TRUE), fixed = TRUE)
  rows <- apply(cells, 1L, function(row) paste0("| ", paste(row, collapse = " | "), " |"))
  rule <- paste0("|", strrep("---|", ncol(cells)))
  paste0(c(rows[1L], rule, rows[-1L]), "\n", collapse = "")
}

latex_table <- function(cells) {
  cells[] <- escape_latex(cells)
  rows <- paste(apply(cells, 1L, paste, collapse = " & "), "\\\\")
  head <- sprintf("\\begin{tabular}{r|%s}", strrep("l", ncol(cells) - 1L))
  paste0(c(head, rows[1L], "\\hline", rows[-1L], "\\end{tabular}"), "\n", collapse = "")
}

html_items <- function(items) {
  items <- escape_html(items)
  if (length(items) == 1L) return(items)
  paste0(c("<ol>", paste0("<li>", items, "</li>"), "</ol>"), "\n", collapse = "")
}

markdown_items <- function(items) {
  if (length(items) == 1L) return(items)
  paste0(seq_along(items), ". ", items, "\n", collapse = "")
}

latex_items <- function(items) {
  items <- escape_latex(items)
  if (length(items) == 1L) return(items)
  paste0(c("\\begin{enumerate}", paste("\\item", items), "\\end{enumerate}"), "\n", collapse = "")
}

escape_latex <- function(text) {
  text <- gsub("\\", "\\textbackslash", text, fixed = TRUE)
  text <- gsub("([&%$#_{}])", "\\\\\\1", text)
  text <- gsub("\\textbackslash", "\\textbackslash{}", text, fixed = TRUE)
  gsub("~", "\\textasciitilde{}", gsub("^", "\\textasciicircum{}", text, fixed = TRUE), fixed = TRUE)
}
