# JSON lines over two FIFOs; standard output and standard error stay the user's.

jsonlite <- requests <- replies <- process <- NULL # set by open_protocol()

# R code refers to a namespace by its name, which has to be forgotten so that the user's library(jsonlite) fails as it
# would without the runner. So everything in it is loaded first.
load_privately <- function(package) {
  namespace <- loadNamespace(package, lib.loc = file.path(home, "library"))
  for (name in names(namespace)) force(namespace[[name]])
  .Internal(unregisterNamespace(package))
  namespace
}

open_protocol <- function() {
  jsonlite <<- load_privately("jsonlite")
  # "e" is glibc's close-on-exec: no child of the user's code inherits the FIFOs. `raw`: they cannot be peeked into.
  requests <<- file(Sys.getenv("RUNNER_IN"), "re", raw = TRUE)
  replies <<- file(Sys.getenv("RUNNER_OUT"), "we", raw = TRUE)
  Sys.unsetenv(c("RUNNER_IN", "RUNNER_OUT"))
  process <<- Sys.getpid()
}

# NULL at the end of the requests.
read_request <- function() {
  line <- readLines(requests, 1L, encoding = "UTF-8", warn = FALSE)
  if (length(line)) jsonlite$parse_json(line)
}

send <- function(message) {
  force(message) # R evaluates arguments when they are used: what is to be said may yet have to be executed
  # A forked child that ran out of the user's code (parallel:::mcfork()) must not speak for its parent.
  if (Sys.getpid() != process) leave_process()
  flush(stdout())
  flush(stderr())
  line <- to_json(message)
  # Half a line would be the end of the conversation.
  suspendInterrupts({
    writeLines(line, replies, useBytes = TRUE)
    flush(replies)
  })
}

to_json <- function(message) jsonlite$toJSON(message, auto_unbox = TRUE, null = "null", json_verbatim = TRUE)

# An object without members; list() would be an array.
nothing <- structure(list(), names = character())

# For a number jsonlite looks up a class by the name of its namespace, which is forgotten.
json_number <- function(number) structure(as.character(number), class = "json")

# jsonlite breaks its lines after every 64 letters.
base64 <- function(bytes) gsub("\n", "", jsonlite$base64_enc(bytes), fixed = TRUE)

send_result <- function(data, main) send(list(result = list(data = data, main = main)))

# JSON is UTF-8; a string in R can be any bytes.
as_utf8 <- function(text) {
  text <- enc2utf8(as.character(text))
  invalid <- !validUTF8(text)
  text[invalid] <- iconv(text[invalid], "UTF-8", "UTF-8", sub = "\ufffd")
  text
}
