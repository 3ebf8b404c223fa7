# The runner. R reads this file as its start-up profile, and never returns from it.
#
# It is a profile and not a script so that R's console is the real standard input: stdin(), scan() and readLines()
# read the input of the run, and not the next lines of a script.
#
# The runner lives in an environment that sees base R only, so that the user's definitions do not change it.
evalq({
  home <- dirname(Sys.getenv("R_PROFILE_USER"))
  Sys.unsetenv("R_PROFILE_USER")

  # R itself would take these two last steps of its start only after the profile.
  .OptRequireMethods()
  .First.sys()

  for (part in c("protocol.R", "session.R", "errors.R", "values.R", "forms.R", "plots.R", "evaluate.R")) {
    sys.source(file.path(home, part), environment(), keep.source = FALSE)
  }

  # Interrupts are suspended here, and an interrupt while idle is forgotten. evaluate.R allows them in the user's code.
  suspendInterrupts({
    open_protocol()
    prepare_session()
    warm_up()
    send(list(ready = nothing))
    while (!is.null(request <- read_request())) {
      forget_interrupt()
      reply <- execute(request)
      if (identical(request$mode, "script")) end_program(reply)
      send(list(done = reply))
    }
  })
  leave_process()
}, new.env(parent = baseenv()))
