# What the user's code finds: a library to install into, a plot device, and a few functions of base R that would take
# the runner away with them.

prepare_session <- function() {
  # Hidden, so that list.files() in a fresh home is empty; it has to exist, or R does not ask for it and does not use it.
  Sys.setenv(R_LIBS_USER = path.expand("~/.local/lib/R/library"))
  dir.create(Sys.getenv("R_LIBS_USER"), recursive = TRUE, showWarnings = FALSE)
  .libPaths(Sys.getenv("R_LIBS_USER"))

  options(device = open_plot_device)

  replace_in_base("quit", quit_code)
  replace_in_base("q", quit_code)
  replace_in_base("closeAllConnections", close_user_connections)
}

replace_in_base <- function(name, replacement) {
  unlockBinding(name, baseenv())
  assign(name, replacement, baseenv())
  lockBinding(name, baseenv())
}

# quit() ends the code, and not the process: the runner has still to say so.
quit_code <- function(save = "default", status = 0, runLast = TRUE) {
  if (Sys.getpid() != process) quit_process(save, status, runLast)
  if (runLast && exists(".Last", globalenv(), inherits = FALSE)) get(".Last", globalenv())()
  status <- suppressWarnings(as.integer(status))[1L]
  # As R: what is no number is 0; of a number the system keeps eight bits.
  invokeRestart("oncebox_quit", if (is.na(status)) 0L else bitwAnd(status, 255L))
}

quit_process <- base::quit
leave_process <- function() quit_process("no", runLast = FALSE)

# As base R's, but for the two connections of the runner.
close_user_connections <- function() {
  while (sink.number() > 0L) sink()
  sink(type = "message")
  for (number in setdiff(getAllConnections(), c(0:2, as.integer(requests), as.integer(replies)))) {
    close(getConnection(number))
  }
  invisible()
}

# Sets environment variables; returns how to set them back.
set_variables <- function(variables) {
  if (!length(variables)) return(function() NULL)
  names <- names(variables)
  before <- Sys.getenv(names, unset = NA, names = TRUE)
  do.call(Sys.setenv, variables)
  function() {
    Sys.unsetenv(names[is.na(before)])
    if (!all(is.na(before))) do.call(Sys.setenv, as.list(before[!is.na(before)]))
  }
}

forget_interrupt <- function() tryCatch(allowInterrupts(Sys.sleep(0)), interrupt = function(e) NULL)
