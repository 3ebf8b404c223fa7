# Formats errors and warnings as Rscript prints them.

# Evaluates an expression of the user. EVALUATION is this call in the call stack: the frames below it are the runner's.
evaluate_in <- function(expression, where) withVisible(eval(expression, where))
EVALUATION <- quote(eval(expression, where))

is_evaluation <- function(call) identical(call, EVALUATION)

# Returns the user's frames, outermost first. Only a handler may call it.
user_calls <- function() {
  calls <- sys.calls()
  calls <- calls[seq_len(length(calls) - 2L)] # this function and the handler
  evaluations <- which(vapply(calls, is_evaluation, NA))
  if (!length(evaluations)) return(list())
  outer <- max(evaluations)
  calls <- calls[seq_along(calls) > outer]
  # R's own frames between an error, or a warning turned into an error, and the handler.
  machinery <- which(vapply(calls, function(call) {
    identical(call[[1L]], quote(.handleSimpleError)) || identical(call[[1L]], quote(.signalSimpleWarning))
  }, NA))
  if (length(machinery)) calls <- calls[seq_len(machinery[1L] - 1L)]
  innermost <- sys.function(outer + length(calls))
  structure(calls, thrown = any(vapply(THROWING, identical, NA, innermost)))
}

# The functions with which code signals conditions; R's own conditions come from C.
THROWING <- list(stop, warning, signalCondition)

# `expression` is the top-level expression that was evaluated; NULL if the code failed before it.
done_with_error <- function(error, calls, expression) {
  message <- message_of(error)
  traceback <- as_utf8(c(headline(error, message, expression), traceback_lines(calls, expression)))
  reply <- list(error = list(
    name = as_utf8(class(error)[1L]),
    value = message,
    traceback = paste(traceback, collapse = "\n")
  ))
  if (!isTRUE(attr(calls, "thrown"))) reply$cause <- limit_behind(message)
  reply
}

# Returns "memory" or "disk" if the message reports that it is used up, and NULL otherwise. R has no class for either
# error.
limit_behind <- function(message) {
  memory <- "^(cannot|could not) allocate |^(cons |vector )?memory exhausted \\(limit reached|^vector memory limit of "
  if (grepl(memory, message)) "memory"
  else if (grepl("(No space left on device|Disk quota exceeded)'?$", message)) "disk"
}

# A class of the user's may have a conditionMessage() that fails.
message_of <- function(condition) {
  message <- tryCatch(paste(conditionMessage(condition), collapse = "\n"), error = function(e) "")
  as_utf8(message)
}

headline <- function(error, message, expression) {
  lines <- strsplit(paste0(message, "\n"), "\n", fixed = TRUE)[[1L]]
  call <- conditionCall(error)
  if (is.null(expression) || is.null(call) || is_evaluation(call)) {
    lines[1L] <- paste0("Error: ", lines[1L])
    return(lines)
  }
  call <- deparse(call, nlines = 1L)[1L]
  # As in R, the message begins on a line of its own if both do not fit on one line.
  fits <- nchar(call, "w") + nchar(lines[1L], "w") + 14L <= 77L
  if (fits) c(paste0("Error in ", call, " : ", lines[1L]), lines[-1L])
  else c(paste0("Error in ", call, " : "), paste0("  ", lines[1L]), lines[-1L])
}

# Formats calls as traceback() does: the innermost call first.
traceback_lines <- function(calls, expression) {
  if (is.null(expression)) return(character())
  if (!length(calls)) calls <- list(expression$call)
  lines <- vapply(calls, call_text, "")
  if (is.null(attr(calls[[1L]], "srcref"))) lines[1L] <- paste0(lines[1L], " at #", expression$line)
  lines <- rev(paste0(seq_along(lines), ": ", lines))
  # Infinite recursion: both ends are sufficient.
  if (length(lines) > 50L) c(head_of(lines, 25L), "...", rev(head_of(rev(lines), 25L))) else lines
}

head_of <- function(x, n) x[seq_len(min(n, length(x)))]

call_text <- function(call) {
  source <- attr(call, "srcref")
  attr(call, "srcref") <- NULL
  text <- deparse(call, nlines = 2L)
  text <- paste0(text[1L], if (length(text) > 1L) " ...")
  if (is.null(source)) return(text)
  file <- basename(attr(source, "srcfile")$filename)
  paste0(text, " at ", if (!startsWith(file, "<")) file, "#", source[1L])
}

warned <- FALSE # whether there may be warnings to print

# At top level R names no call in a warning, but here it would name the runner's. Everything else about a warning is
# left to R.
correct_warning <- function(warning) {
  warned <<- TRUE
  if (!is_evaluation(conditionCall(warning))) return()
  .Internal(.dfltWarn(message_of(warning), NULL))
  invokeRestart("muffleWarning")
}

# Prints deferred warnings, as R does after each top-level expression. R's own function is for use after an error, and
# prints "In addition: ", which is removed.
print_warnings <- function() {
  if (!warned) return()
  warned <<- FALSE
  printed <- rawConnection(raw(), "wb")
  before <- sink.number("message")
  sink(printed, type = "message")
  .Internal(printDeferredWarnings())
  sink(getConnection(before), type = "message")
  text <- rawToChar(rawConnectionValue(printed))
  close(printed)
  if (nzchar(text)) cat(sub("^In addition: ", "", as_utf8(text)), file = stderr())
}
