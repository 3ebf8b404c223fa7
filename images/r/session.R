# Prepares R for the user's code: a library to install into, a plot device, and replacements for a few functions of base
# R that would end or disconnect the runner.

prepare_session <- function() {
  # The library is hidden, so that list.files() in a fresh home is empty. It has to exist: otherwise R does not use it.
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

# quit() ends the code and not the process, because the runner has to report the exit.
quit_code <- function(save = "default", status = 0, runLast = TRUE) {
  if (Sys.getpid() != process) quit_process(save, status, runLast)
  if (runLast && exists(".Last", globalenv(), inherits = FALSE)) get(".Last", globalenv())()
  status <- suppressWarnings(as.integer(status))[1L]
  # As in R, a status that is not a number is 0, and the system keeps eight bits of a number.
  invokeRestart("oncebox_quit", if (is.na(status)) 0L else bitwAnd(status, 255L))
}

# A script ends as a program does in R: quit() runs the finalizers that the code registered for the end, the newest first.
# This finalizer is the oldest, so the reply follows the last of them.
last_reply <- NULL
reg.finalizer(environment(), function(e) if (!is.null(last_reply)) finish(), onexit = TRUE)

finish <- function() {
  send(list(done = last_reply))
  # R would remove its temporary directory now, and a full disk would not be full any more when the agent looks.
  read_request()
}

end_program <- function(reply) {
  send(list(ending = reply))
  last_reply <<- reply
  leave_process()
}

quit_process <- base::quit
leave_process <- function() quit_process("no", runLast = FALSE)

# Like base R's function, but keeps the two connections of the runner open.
close_user_connections <- function() {
  while (sink.number() > 0L) sink()
  sink(type = "message")
  for (number in setdiff(getAllConnections(), c(0:2, as.integer(requests), as.integer(replies)))) {
    close(getConnection(number))
  }
  invisible()
}

# Sets environment variables; returns a function that restores them.
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
