# JSON lines over two FIFOs; standard output and standard error stay the user's.

jsonlite <- requests <- replies <- process <- NULL # set by open_protocol()

# Loads a package so that the user's library(jsonlite) fails as it would without the runner. For that its namespace is
# unregistered. R code refers to a namespace by its name, so everything in it is loaded before.
load_privately <- function(package) {
  namespace <- loadNamespace(package, lib.loc = file.path(home, "library"))
  for (name in names(namespace)) force(namespace[[name]])
  .Internal(unregisterNamespace(package))
  namespace
}

open_protocol <- function() {
  jsonlite <<- load_privately("jsonlite")
  # "e" is glibc's close-on-exec: no child of the user's code inherits the FIFOs. `raw`: a FIFO cannot be peeked into.
  requests <<- file(Sys.getenv("RUNNER_IN"), "re", raw = TRUE)
  replies <<- file(Sys.getenv("RUNNER_OUT"), "we", raw = TRUE)
  Sys.unsetenv(c("RUNNER_IN", "RUNNER_OUT"))
  process <<- Sys.getpid()
}

# Returns the next request, or NULL at the end.
read_request <- function() {
  line <- readLines(requests, 1L, encoding = "UTF-8", warn = FALSE)
  if (length(line)) jsonlite$parse_json(line)
}

send <- function(message) {
  force(message) # R evaluates arguments lazily: the message may be the code's execution itself
  # A forked child that reached the end of the user's code (parallel:::mcfork()) must not answer for its parent.
  if (Sys.getpid() != process) leave_process()
  flush(stdout())
  flush(stderr())
  line <- to_json(message)
  # Half a line would break the protocol.
  suspendInterrupts({
    writeLines(line, replies, useBytes = TRUE)
    flush(replies)
  })
}

to_json <- function(message) jsonlite$toJSON(message, auto_unbox = TRUE, null = "null", json_verbatim = TRUE)

# Becomes an object without members; list() would become an array.
nothing <- structure(list(), names = character())

# Formats a number as JSON. For numbers jsonlite looks up a class in its namespace by name, which is unregistered.
json_number <- function(number) structure(as.character(number), class = "json")

# jsonlite inserts a line break after every 64 characters.
base64 <- function(bytes) gsub("\n", "", jsonlite$base64_enc(bytes), fixed = TRUE)

send_result <- function(data, main) send(list(result = list(data = data, main = main)))

# Returns valid UTF-8, as JSON requires; a string in R can be any bytes.
as_utf8 <- function(text) {
  text <- enc2utf8(as.character(text))
  invalid <- !validUTF8(text)
  text[invalid] <- iconv(text[invalid], "UTF-8", "UTF-8", sub = "\ufffd")
  text
}
