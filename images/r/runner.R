# The runner: R reads this file as its start-up profile, and stays in it.
#
# A profile rather than a script, because then R's console is the real standard input: stdin(), scan() and
# readLines() read what the run was given, and not the lines of a script that follow.
#
# All of it lives in an environment that sees base R alone: nothing the user defines changes what runs here.
evalq({
  home <- dirname(Sys.getenv("R_PROFILE_USER"))
  Sys.unsetenv("R_PROFILE_USER")

  # R itself would do these two, its last steps, only after the profile.
  .OptRequireMethods()
  .First.sys()

  for (part in c("protocol.R", "session.R", "errors.R", "values.R", "forms.R", "plots.R", "evaluate.R")) {
    sys.source(file.path(home, part), environment(), keep.source = FALSE)
  }

  # An interrupt while idle waits, and is forgotten; evaluate.R lets it through to the user's code.
  suspendInterrupts({
    open_protocol()
    prepare_session()
    warm_up()
    send(list(ready = nothing))
    while (!is.null(request <- read_request())) {
      forget_interrupt()
      send(list(done = execute(request)))
    }
  })
  leave_process()
}, new.env(parent = baseenv()))
