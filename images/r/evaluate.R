# Runs one execution: evaluates every expression in order, shows visible values, and returns the outcome.

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
          reply <- evaluate(parse_code(request$code))
          if (identical(request$mode, "script")) call_last()
          reply
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
    # The user's own invokeRestart("abort") stops the code without an error.
    abort = function() nothing
  )
  print_warnings()
  tryCatch(finish_plots(), error = function(e) NULL)
  reply
}

# R calls `.Last` where a program ends without an error.
call_last <- function() {
  if (exists(".Last", globalenv(), inherits = FALSE)) allowInterrupts(get(".Last", globalenv())())
}

# The call and the line of the current top-level expression, for error messages. NULL while there is none.
expression_evaluated <- NULL

parse_code <- function(code) {
  # Tracebacks need the lines. Parse data about every token is not needed, and would take more time than everything
  # else.
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

# Runs code of every kind without sending results, so that everything is loaded and compiled before the user's first
# line.
warm_up <- function() {
  real_send <- send
  send <<- function(message) to_json(message)
  on.exit(send <<- real_send)
  for (code in c(
    "1 + 1", "data.frame(a = 1:2, b = c('x', 'y'))", "suppressWarnings(as.integer('x'))",
    "local({ f <- function() stop('x'); f() })", "plot(1:2, main = 'x')", "quit()", "1 +"
  )) {
    execute(list(code = code, env = list(WARM_UP = "1")))
  }
  unlink(pages, recursive = TRUE)
  .Internal(seterrmessage(""))
}
