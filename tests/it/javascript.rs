//! Features of JavaScript: Node's modules and values, promises, timers, errors.

use serde_json::{Value, json};

use crate::support::{decoded, run, stderr, stdout};

trials![
    nodes_modules_can_be_required_and_imported,
    a_package_that_is_not_there_is_nodes_own_error,
    values_are_printed_as_node_does,
    promises_are_awaited,
    timers_run_before_the_end,
    a_promise_that_nothing_settles_is_an_error,
    a_late_failure_is_an_exception,
    traces_begin_with_the_error_and_have_the_users_frames,
    errors_of_the_users_own_keep_their_name,
    values_other_than_errors_can_be_thrown,
    the_event_loop_serves_workers_and_sockets,
    exit_listeners_and_exit_codes_work,
    display_shows_values_beside_the_result,
    a_script_can_be_sloppy_or_strict,
    a_file_has_its_own_this_and_variables,
    a_file_may_return,
];

async fn ok(code: &str) -> Value {
    let answer = run("js", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    answer
}

async fn value(code: &str) -> String {
    ok(code).await["results"][0].as_str().expect("a value").to_owned()
}

async fn nodes_modules_can_be_required_and_imported() {
    let code = "import { createHash } from 'node:crypto'\nimport * as path from 'path'\nimport fs, { readFileSync } from 'fs'\n\
                const { gunzipSync, gzipSync } = require('node:zlib')\nconst { EOL } = await import('os');\n\
                [createHash('sha256').update('x').digest('hex').slice(0, 8), path.join('a', 'b'), fs.readFileSync === readFileSync,\n\
                gunzipSync(gzipSync('zip')).toString(), EOL]";
    assert_eq!(value(code).await, "[ '2d711642', 'a/b', true, 'zip', '\\n' ]");
}

async fn a_package_that_is_not_there_is_nodes_own_error() {
    let answer = run("js", "console.log('before')\nrequire('axios')").await;
    assert_eq!(stdout(&answer), "before\n");
    assert_eq!(answer["exception"]["name"], "Error");
    let error = answer["error"].as_str().expect("text");
    assert!(error.starts_with("Error: Cannot find module 'axios'\n"), "{error}");
    assert!(error.contains("at [eval1]:2:1 {\n  code: 'MODULE_NOT_FOUND'"), "{error}");
    for code in ["import axios from 'axios'", "await import('axios')"] {
        let answer = run("js", code).await;
        let error = answer["error"].as_str().expect("text");
        assert!(error.starts_with("Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'axios'"), "{error}");
    }
}

async fn values_are_printed_as_node_does() {
    let code =
        "({ a: 1.5, b: [1, 'x', null, undefined], m: new Map([[1, {}]]), f() {}, n: 10n, s: Symbol('s'), e: [, 1] })";
    let expected = "{\n  a: 1.5,\n  b: [ 1, 'x', null, undefined ],\n  m: Map(1) { 1 => {} },\n  f: [Function: f],\n  \
                    n: 10n,\n  s: Symbol(s),\n  e: [ <1 empty item>, 1 ]\n}";
    assert_eq!(value(code).await, expected);
    assert_eq!(value("{ a: 1 }").await, "{ a: 1 }");
    assert_eq!(value("class Point { #hidden = 1; x = 2 }\nnew Point()").await, "Point { x: 2 }");
    assert_eq!(value("null").await, "null");
    assert_eq!(ok("undefined").await["results"], json!([]));
}

async fn promises_are_awaited() {
    let code = "const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))\n\
                for await (const n of (async function* () { yield 1; yield 2 })()) console.log(n)\n\
                await Promise.all([3, 4].map(async n => { await sleep(10); return 2 * n }))";
    let answer = ok(code).await;
    assert_eq!(stdout(&answer), "1\n2\n");
    assert_eq!(answer["results"], json!(["[ 6, 8 ]"]));
    assert_eq!(value("async function seven() { return 7 }\nseven()").await, "7");
}

async fn timers_run_before_the_end() {
    let answer = ok("setImmediate(() => { console.log('soon'); setTimeout(() => console.log('later'), 50) })\nconsole.log('now'); 'value'").await;
    assert_eq!(stdout(&answer), "now\nsoon\nlater\n");
    assert_eq!(answer["results"], json!(["'value'"]));
}

async fn a_promise_that_nothing_settles_is_an_error() {
    let answer = run("js", "console.log('before')\nawait new Promise(() => {})").await;
    assert_eq!(answer["outcome"]["kind"], "exception");
    assert_eq!(answer["error"], "Error: the code awaits a promise that nothing is left to settle");
}

async fn a_late_failure_is_an_exception() {
    let answer = run("js", "setTimeout(() => { throw new Error('late') }, 50)\n'value'").await;
    assert_eq!(answer["results"], json!(["'value'"]));
    assert_eq!(answer["exception"]["value"], "late");
    let answer = run("js", "Promise.reject(new TypeError('nobody caught it'))\n1").await;
    assert_eq!(answer["outcome"]["message"], "TypeError: nobody caught it");
}

async fn traces_begin_with_the_error_and_have_the_users_frames() {
    let code = "function outer() {\n  inner()\n}\nfunction inner() {\n  null.x\n}\nouter()";
    let trace = "TypeError: Cannot read properties of null (reading 'x')\n    at inner ([eval1]:5:8)\n    at outer ([eval1]:2:3)\n    at [eval1]:7:1";
    assert_eq!(run("js", code).await["error"], trace);
    let code = "async function fail() {\n  await 1\n  throw new Error('x')\n}\nawait fail()";
    let trace = "Error: x\n    at fail ([eval1]:3:9)\n    at async [eval1]:5:1";
    assert_eq!(run("js", code).await["error"], trace);
    let code = "throw new Error('outer', { cause: new Error('inner') })";
    let trace = "Error: outer\n    at [eval1]:1:7 {\n  [cause]: Error: inner\n      at [eval1]:1:35\n}";
    assert_eq!(run("js", code).await["error"], trace);
    let answer = ok("console.error(new Error('printed').stack)").await;
    assert_eq!(stderr(&answer), "Error: printed\n    at [eval1]:1:15\n");
}

async fn errors_of_the_users_own_keep_their_name() {
    let answer = run("js", "class MyError extends Error {}\nthrow new MyError('zwei\\nZeilen ü')").await;
    assert_eq!(answer["exception"]["name"], "MyError");
    assert_eq!(answer["exception"]["value"], "zwei\nZeilen ü");
    assert_eq!(answer["outcome"]["message"], "MyError: zwei");
}

async fn values_other_than_errors_can_be_thrown() {
    for (thrown, name, shown) in
        [("'text'", "string", "'text'"), ("{ a: 1 }", "object", "{ a: 1 }"), ("null", "object", "null")]
    {
        let answer = run("js", &format!("throw {thrown}")).await;
        assert_eq!(
            answer["exception"],
            json!({"name": name, "value": shown, "traceback": format!("Uncaught {shown}")})
        );
    }
}

async fn the_event_loop_serves_workers_and_sockets() {
    let code = "const { Worker } = require('worker_threads')\n\
                const worker = new Worker('require(\"worker_threads\").parentPort.postMessage(42)', { eval: true })\n\
                const answer = await new Promise(resolve => worker.on('message', resolve))\n\
                const server = require('http').createServer((request, response) => response.end('served'))\n\
                await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))\n\
                const text = await (await fetch(`http://127.0.0.1:${server.address().port}`)).text()\n\
                server.close();\n[answer, text]";
    assert_eq!(value(code).await, "[ 42, 'served' ]");
}

async fn exit_listeners_and_exit_codes_work() {
    let answer = run("js", "process.on('exit', code => console.log('leaving with', code))\nprocess.exit(2)").await;
    assert_eq!(answer["outcome"], json!({"kind": "exit", "message": "the code exited with status 2"}));
    assert_eq!(stdout(&answer), "leaving with 2\n");
    let answer = run("js", "process.exitCode = 5\n'value'").await;
    assert_eq!(answer["outcome"]["message"], "the code exited with status 5");
    assert_eq!(answer["results"], json!(["'value'"]));
}

async fn display_shows_values_beside_the_result() {
    let code = "display({ a: 1 })\n\
                display.mime({ 'text/html': '<b>x</b>', 'image/png': new Uint8Array(256).map((_, n) => n) })\n'value'";
    let answer = ok(code).await;
    let outputs = &answer["outputs"];
    assert_eq!(outputs[0], json!({"text/plain": "{ a: 1 }", "main": false}));
    assert_eq!(outputs[1]["text/html"], "<b>x</b>");
    assert_eq!(decoded(&outputs[1]["image/png"]), (0..=255).collect::<Vec<u8>>());
    assert_eq!(outputs[2], json!({"text/plain": "'value'", "main": true}));
}

async fn a_script_can_be_sloppy_or_strict() {
    assert_eq!(value("undeclared = 5; undeclared").await, "5");
    let answer = run("js", "'use strict'; undeclared = 5").await;
    assert_eq!(answer["outcome"]["message"], "ReferenceError: undeclared is not defined");
    assert_eq!(
        stdout(&ok("#!/usr/bin/env node\nconsole.log(__dirname, require.main === module)").await),
        "/home/user true\n"
    );
}

async fn a_file_has_its_own_this_and_variables() {
    let code = "console.log(this, this === exports)\nvar leaked = 1\nfunction own() { return this }\n\
                console.log(globalThis.leaked, own() === globalThis)\nconst arrow = () => this\nexports.x = 1\nconsole.log(arrow())";
    assert_eq!(stdout(&ok(code).await), "{} true\nundefined true\n{ x: 1 }\n");
}

async fn a_file_may_return() {
    let answer = ok("console.log('before')\nif (true) return\nconsole.log('after')").await;
    assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("before\n", &json!([])));
    assert_eq!(value("for (const n of [1, 2]) if (n > 1) return n * 21").await, "42");
    let trace = "TypeError: Cannot read properties of null (reading 'x')\n    at [eval1]:2:8";
    assert_eq!(run("js", "if (false) return\n  null.x").await["error"], trace);
}
