# One execution: every expression in order, its value shown if visible, and how it ended.

execute <- function(request) {
  expression_evaluated <<- NULL
  calls <- list()
  formats <<- intersect(unlist(request$formats), c("text/markdown", "text/latex"))
  restore <- set_variables(request$env)
  on.exit(restore())
  reply <- withRestarts(
    tryCatch(
      withCallingHandlers(
        {
          if (!is.null(request$cwd)) setwd(request$cwd)
          evaluate(parse_code(request$code))
        },
        error = function(e) calls <<- user_calls(),
        warning = correct_warning
      ),
      error = function(e) done_with_error(e, calls, expression_evaluated),
      interrupt = function(e) list(error = list(
        name = "interrupt", value = "the code was interrupted", traceback = "Interrupted"
      ))
    ),
    oncebox_quit = function(status) list(exit_code = json_number(status)),
    # What stops the code without an error: the user's own invokeRestart("abort").
    abort = function() nothing
  )
  print_warnings()
  tryCatch(finish_plots(), error = function(e) NULL)
  reply
}

# The one at top level, for error messages: its call and its line. NULL while there is none.
expression_evaluated <- NULL

parse_code <- function(code) {
  # The lines are for tracebacks; data on every token would take more time than all the rest.
  before <- options(keep.parse.data = FALSE)
  on.exit(options(before))
  parse(text = gsub("\r\n", "\n", code, fixed = TRUE), keep.source = TRUE)
}

evaluate <- function(expressions) {
  sources <- attr(expressions, "srcref")
  for (i in seq_along(expressions)) {
    expression_evaluated <<- list(call = expressions[[i]], line = sources[[i]][1L])
    outcome <- allowInterrupts(evaluate_in(expressions[[i]], globalenv()))
    last <- i == length(expressions)
    if (last) finish_plots() else send_plots()
    if (outcome$visible) show_value(outcome$value, main = last)
    print_warnings()
  }
  nothing
}

# Runs code of every kind through its real path, unheard: the user's first line finds everything loaded and compiled.
warm_up <- function() {
  speak <- send
  send <<- function(message) to_json(message)
  on.exit(send <<- speak)
  for (code in c(
    "1 + 1", "data.frame(a = 1:2, b = c('x', 'y'))", "suppressWarnings(as.integer('x'))",
    "local({ f <- function() stop('x'); f() })", "plot(1:2, main = 'x')", "quit()", "1 +"
  )) {
    execute(list(code = code, env = list(WARM_UP = "1")))
  }
  unlink(pages, recursive = TRUE)
  .Internal(seterrmessage(""))
}
