# Definitions for attempts in R.
options(warn = 1)
variable <- function(name) Sys.getenv(name)
writable <- function(path) {
  stopifnot(file.exists(path))
  close(file(path, "ab"))
}
readable <- function(path) {
  stream <- file(path, "rb")
  on.exit(close(stream))
  readBin(stream, "raw", 16)
}
command <- function(...) stopifnot(system(paste(...), ignore.stdout = TRUE, ignore.stderr = TRUE) == 0)
greeted <- function(target) {
  parts <- strsplit(target, ":")[[1]]
  stream <- socketConnection(parts[1], as.integer(parts[2]), open = "r+b", blocking = TRUE, timeout = 3)
  on.exit(close(stream))
  stopifnot(identical(rawToChar(readBin(stream, "raw", 5)), "hello"))
}
# The targets of open descriptors, without the three standard streams, the runner's files and the two FIFOs to the
# agent.
foreign <- function() {
  # The descriptor that lists the directory is closed before its link is read, and has no target.
  links <- Sys.readlink(setdiff(list.files("/proc/self/fd", full.names = TRUE), paste0("/proc/self/fd/", 0:2)))
  links[!is.na(links) & !grepl("^$|^/opt/oncebox/r/|^/run/oncebox/[0-9]+/(in|out)$", links)]
}
