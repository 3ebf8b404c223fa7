//! Features of R: printed values, packages, plots, conditions.

use serde_json::{Value, json};

use crate::support::{png_size, run, run_with, stderr, stdout};

trials![
    base_and_recommended_packages_are_there,
    a_package_that_is_not_there_is_rs_own_error,
    every_visible_value_is_a_result,
    assignments_and_invisible_values_are_not_shown,
    values_are_printed_as_r_does,
    a_data_frame_is_text_and_html,
    plots_come_back_as_png,
    a_plot_of_the_users_own_device_stays_a_file,
    lattice_draws_when_its_value_is_shown,
    warnings_and_messages_go_to_stderr,
    an_error_names_its_call_and_its_line,
    a_class_of_the_users_own_is_the_name_of_the_error,
    an_error_can_be_caught,
    models_and_parallel_work,
    readline_does_not_wait,
    memory_that_is_not_there_is_named,
];

async fn ok(code: &str) -> Value {
    let answer = run("r", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    answer
}

async fn base_and_recommended_packages_are_there() {
    let code = "packages <- c('stats', 'graphics', 'grDevices', 'utils', 'datasets', 'methods', 'stats4', 'splines', 'grid',\n\
                'parallel', 'tools', 'compiler', 'MASS', 'Matrix', 'boot', 'class', 'cluster', 'codetools', 'foreign', 'KernSmooth',\n\
                'lattice', 'mgcv', 'nlme', 'nnet', 'rpart', 'spatial', 'survival')\n\
                packages[!suppressPackageStartupMessages(suppressWarnings(sapply(packages, require, character.only = TRUE, quietly = TRUE)))]\n\
                R.version$major";
    assert_eq!(ok(code).await["results"], json!(["character(0)", "[1] \"4\""]));
}

async fn a_package_that_is_not_there_is_rs_own_error() {
    let answer = run("r", "cat('before\\n')\nlibrary(ggplot2)").await;
    assert_eq!(stdout(&answer), "before\n");
    assert_eq!(answer["exception"]["name"], "packageNotFoundError");
    assert_eq!(answer["exception"]["value"], "there is no package called ‘ggplot2’");
    let error = answer["error"].as_str().expect("text");
    assert!(error.starts_with("Error in library(ggplot2) : there is no package called ‘ggplot2’\n"), "{error}");
    // Not even the package that the runner uses.
    assert_eq!(run("r", "library(jsonlite)").await["exception"]["name"], "packageNotFoundError");
}

async fn every_visible_value_is_a_result() {
    let answer = ok("1 + 1\nx <- 5\n'text'\nx").await;
    assert_eq!(answer["results"], json!(["[1] 2", "[1] \"text\"", "[1] 5"]));
    let mains: Vec<_> = answer["outputs"].as_array().expect("a list").iter().map(|output| &output["main"]).collect();
    assert_eq!(mains, [false, false, true]);
    assert_eq!(stdout(&answer), "");
}

async fn assignments_and_invisible_values_are_not_shown() {
    assert_eq!(
        ok("x <- 5; invisible(6); for (i in 1:3) i; f <- function() invisible(7); f()").await["results"],
        json!([])
    );
    assert_eq!(ok("(x <- 5)").await["results"], json!(["[1] 5"]));
    let answer = ok("print('printed')\ninvisible()").await;
    assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("[1] \"printed\"\n", &json!([])));
}

async fn values_are_printed_as_r_does() {
    let code =
        "NULL\nc(a = 1, b = 2.5)\nmatrix(1:4, 2)\nfactor(c('u', 'v'))\nlist(1, k = 'a')\nfunction(x) x + 1\n1:26";
    let printed = [
        "NULL",
        "  a   b \n1.0 2.5 ",
        "     [,1] [,2]\n[1,]    1    3\n[2,]    2    4",
        "[1] u v\nLevels: u v",
        "[[1]]\n[1] 1\n\n$k\n[1] \"a\"\n",
        "function(x) x + 1",
        " [1]  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25\n[26] 26",
    ];
    assert_eq!(ok(code).await["results"], json!(printed));
    let code = "setClass('P', representation(x = 'numeric'))\nsetMethod('show', 'P', function(object) cat('<P', object@x, '>\\n'))\nnew('P', x = 1)";
    assert_eq!(ok(code).await["results"], json!(["<P 1 >"]));
}

async fn a_data_frame_is_text_and_html() {
    let answer = ok("data.frame(a = 1:2, b = c('x', '<y>'))").await;
    let output = &answer["outputs"][0];
    assert_eq!(output["text/plain"], "  a   b\n1 1   x\n2 2 <y>");
    let html = output["text/html"].as_str().expect("html");
    assert!(html.starts_with("<table>") && html.contains("<td>&lt;y&gt;</td>"), "{html}");
}

async fn plots_come_back_as_png() {
    let answer = ok("plot(1:10)\nlines(10:1)\nhist(c(1, 2, 2, 3), main = 'ü')\n'value'").await;
    assert_eq!(answer["results"], json!(["<plot>", "<plot>", "[1] \"value\""]));
    for n in 0..2 {
        assert_eq!(png_size(&answer["outputs"][n]), (840, 600));
        assert_eq!(answer["outputs"][n]["main"], false);
    }
    assert_ne!(answer["outputs"][0]["image/png"], answer["outputs"][1]["image/png"]);
    let answer = ok("options(repr.plot.width = 4, repr.plot.height = 3, repr.plot.res = 100)\nbarplot(1:3)").await;
    assert_eq!(png_size(&answer["outputs"][0]), (400, 300));
}

async fn a_plot_of_the_users_own_device_stays_a_file() {
    let answer = ok("png('own.png', width = 100)\nplot(1)\ninvisible(dev.off())\nfile.exists('own.png')").await;
    assert_eq!(answer["results"], json!(["[1] TRUE"]));
}

async fn lattice_draws_when_its_value_is_shown() {
    let answer = ok("p <- lattice::xyplot(1:3 ~ 1:3)\np").await;
    assert_eq!(answer["results"], json!(["<plot>"]));
    assert_eq!(png_size(&answer["outputs"][0]), (840, 600));
}

async fn warnings_and_messages_go_to_stderr() {
    let answer = ok("message('a message')\nwarning('careful')\nas.integer('x')").await;
    assert_eq!(
        stderr(&answer),
        "a message\nWarning message:\ncareful \nWarning message:\nNAs introduced by coercion \n"
    );
    assert_eq!(answer["results"], json!(["[1] NA"]));
    assert_eq!(stdout(&answer), "");
    assert_eq!(
        stderr(&ok("f <- function() { warning('inner'); cat('out\\n') }\nf()").await),
        "Warning message:\nIn f() : inner\n"
    );
}

async fn an_error_names_its_call_and_its_line() {
    let answer = run("r", "f <- function(x) g(x)\ng <- function(x) stop('deep: ', x)\n\nf(1)").await;
    assert_eq!(answer["error"], "Error in g(x) : deep: 1\n3: stop(\"deep: \", x) at #2\n2: g(x) at #1\n1: f(1) at #4");
    let answer = run("r", "no_such_thing + 1").await;
    assert_eq!(answer["exception"]["value"], "object 'no_such_thing' not found");
    let answer = run("r", "if (TRUE) {\n1").await;
    assert_eq!(answer["exception"]["value"], "<text>:3:0: unexpected end of input\n1: if (TRUE) {\n2: 1\n  ^");
}

async fn a_class_of_the_users_own_is_the_name_of_the_error() {
    let code =
        "stop(structure(class = c('myError', 'error', 'condition'), list(message = 'zwei\\nZeilen ü', call = NULL)))";
    let answer = run("r", code).await;
    assert_eq!(answer["exception"]["name"], "myError");
    assert_eq!(answer["exception"]["value"], "zwei\nZeilen ü");
    assert_eq!(answer["outcome"]["message"], "myError: zwei");
}

async fn an_error_can_be_caught() {
    let answer =
        ok("tryCatch(stop('caught'), error = function(e) conditionMessage(e), finally = cat('finally\\n'))").await;
    assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("finally\n", &json!(["[1] \"caught\""])));
    let answer = ok("try(log('a'))\n'after'").await;
    assert_eq!(stderr(&answer), "Error in log(\"a\") : non-numeric argument to mathematical function\n");
    assert_eq!(answer["results"], json!(["[1] \"after\""]));
}

async fn models_and_parallel_work() {
    let code = "round(summary(lm(mpg ~ wt, mtcars))$r.squared, 4)\nunlist(parallel::mclapply(1:3, function(i) i^2, mc.cores = 2))";
    assert_eq!(ok(code).await["results"], json!(["[1] 0.7528", "[1] 1 4 9"]));
}

async fn readline_does_not_wait() {
    let answer = run_with(json!({"language": "r", "code": "scan(quiet = TRUE)", "stdin": "1 2\n3"})).await;
    assert_eq!(answer["results"], json!(["[1] 1 2 3"]));
    // If R is not interactive, it answers questions for the user.
    assert_eq!(ok("readline('name? ')").await["results"], json!(["[1] \"\""]));
}

async fn memory_that_is_not_there_is_named() {
    let answer = run("r", "x <- numeric(2^34)").await;
    assert_eq!(answer["outcome"]["kind"], "out_of_memory");
    assert_eq!(answer["exception"]["value"], "cannot allocate vector of size 128.0 Gb");
}
