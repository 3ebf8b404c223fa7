//! Whole files of JavaScript and TypeScript: code that Node could be started with does here what it does there.

use libtest_mimic::Trial;
use serde_json::json;

use crate::e2b::Sandbox;
use crate::support::{run, run_with, stderr, stdout, trial};

macro_rules! in_both_languages {
    ($($name:ident),* $(,)?) => {
        /// Every test, once per language.
        pub(crate) fn trials() -> Vec<Trial> {
            let mut trials = Vec::new();
            for language in ["js", "ts"] {
                $(trials.push(trial(module_path!(), &format!("{}::{language}", stringify!($name)), move || $name(language)));)*
            }
            trials
        }
    };
}

in_both_languages![
    every_form_of_export_works,
    a_default_export_without_a_name_is_a_value,
    what_is_used_at_top_level_is_disposed_at_the_end,
    a_module_is_strict_and_its_constants_are_constant,
    everything_that_names_the_file_agrees,
    the_file_is_there_only_for_code_that_names_it,
    a_file_of_the_same_name_stays_as_it_is,
    relative_names_start_at_the_working_directory,
    workers_run_the_same_file,
    forks_run_the_same_file,
    clusters_run_the_same_file,
    a_program_reads_and_starts_its_own_file,
    a_file_may_require_and_await_in_its_children_too,
    deferred_work_runs_in_the_order_of_node,
    tests_of_node_pass_and_fail,
    a_notebook_uses_for_one_cell,
    a_notebook_takes_whole_files,
];

/// Runs code that must end well and print nothing on standard error; what it printed.
async fn printed(language: &str, code: &str) -> String {
    let answer = run(language, code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{code}\n{answer}");
    assert_eq!(stderr(&answer), "", "{code}");
    stdout(&answer)
}

async fn every_form_of_export_works(language: &str) {
    let named = [
        "export function f() {}",
        "export async function* g() {}",
        "export class C { static x = 1 }",
        "export { a, a as b, a as 'any name' }",
        "export {}",
        "export * from 'node:path'",
        "export * as path from 'node:path'",
        "export { join } from 'node:path'",
    ];
    let default = [
        "export default class {}",
        "export default class extends Array { constructor() { super() } }",
        "export default class Named {}",
        "export default function () {}",
        "export default async function* () { yield await 1 }",
        "export default async function named() { await 1 }",
        "export { a as default }",
        "export { sep as default } from 'node:path'",
    ];
    // The line after each export would continue an expression.
    let next = "\n(function () { console.log('called', a[0]) })()\n";
    let code = format!("const a = [5]\n{}{next}", named.join(next));
    assert_eq!(printed(language, &code).await, "called 5\n".repeat(named.len()));
    for export in default {
        let code = format!("const a = [5]\n{export}{next}");
        assert_eq!(printed(language, &code).await, "called 5\n", "{export}");
    }
    let values =
        "export const { p, ...q } = { p: 1 }\nexport let r, s = 2\nexport var v = 3\nconsole.log(p, q, r, s, v)\n";
    for export in ["() => {}", "{ a: 1, b: 2 }", "([1].length)", "await Promise.resolve(1)", "values = 1"] {
        let code = format!("let values\n{values}export default {export}\nconsole.log('next')");
        assert_eq!(printed(language, &code).await, "1 {} undefined 2 3\nnext\n", "{export}");
    }
    let missing = run(language, "console.log('not reached')\nexport * from './missing.js'").await;
    assert_eq!((stdout(&missing).as_str(), &missing["outcome"]["kind"]), ("", &json!("exception")), "{missing}");
}

async fn a_default_export_without_a_name_is_a_value(language: &str) {
    for (code, value) in [
        ("export default class {}", "[class default]"),
        ("export default class extends Map {}", "[class default extends Map]"),
        ("export default function () {}\n// the end", "[Function: default]"),
        ("export default async () => 1;", "[AsyncFunction: default]"),
        ("export default { a: 1 }", "{ a: 1 }"),
        ("export default await Promise.resolve(6) * 7", "42"),
    ] {
        assert_eq!(run(language, code).await["results"], json!([value]), "{code}");
    }
}

/// Something that can be used, and says so.
const RESOURCE: &str = "const open = (name) => ({ [Symbol.dispose]() { console.log('closed', name) },\n\
                        async [Symbol.asyncDispose]() { await 1; console.log('closed later', name) } })\n";

async fn what_is_used_at_top_level_is_disposed_at_the_end(language: &str) {
    let code = format!(
        "{RESOURCE}using a = open('a'), b = open('b')\nconsole.log('end')\nsetTimeout(() => console.log('timer'))"
    );
    assert_eq!(printed(language, &code).await, "end\nclosed b\nclosed a\ntimer\n");
    let code = format!(
        "{RESOURCE}await using a = open('a')\nusing b = open('b')\nfor (using c of [open('c')]) console.log('loop')\n7"
    );
    let answer = run(language, &code).await;
    assert_eq!(
        (stdout(&answer).as_str(), &answer["results"]),
        ("loop\nclosed c\nclosed b\nclosed later a\n", &json!(["7"]))
    );
    let answer = run(language, &format!("{RESOURCE}using a = open('a')\nnull.x")).await;
    assert_eq!(
        (stdout(&answer).as_str(), &answer["exception"]["name"]),
        ("closed a\n", &json!("TypeError")),
        "{answer}"
    );
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("[eval1]:4:6")), "{answer}");
}

async fn a_module_is_strict_and_its_constants_are_constant(language: &str) {
    let code = "import fs from 'node:fs'\nconst one = 1\nfunction own() { return this }\n\
                for (const attempt of [() => { one = 2 }, () => { fs = null }, () => { undeclared = 1 }, () => late, () => this.x])\n\
                \ttry { attempt() } catch (error) { console.log(error.name) }\n\
                let late = 1\nconsole.log(own(), this, globalThis.own, one)";
    let expected = "TypeError\nTypeError\nReferenceError\nReferenceError\nTypeError\nundefined undefined undefined 1\n";
    assert_eq!(printed(language, code).await, expected);
}

async fn everything_that_names_the_file_agrees(language: &str) {
    let code = "import { existsSync, readFileSync } from 'node:fs'\nimport { pathToFileURL } from 'node:url'\n\
                const { url, filename, dirname, main } = import.meta\n\
                console.log(url, filename, dirname, main, __filename, __dirname, process.argv.slice(1))\n\
                console.log(require.main === module, module.filename, module.id, module.parent, process.mainModule === module)\n\
                console.log(pathToFileURL(process.argv[1]).href === url, process.cwd() === __dirname, require(__filename) === module.exports)\n\
                console.log(import.meta.resolve('./x.js'), import.meta.resolve('fs'), readFileSync(filename, 'utf8').length)";
    let expected = format!(
        "file:///home/user/main.{language} /home/user/main.{language} /home/user true /home/user/main.{language} \
         /home/user [ '/home/user/main.{language}' ]\ntrue /home/user/main.{language} . null true\ntrue true true\n\
         file:///home/user/x.js node:fs {}\n",
        code.len()
    );
    assert_eq!(printed(language, code).await, expected);
    let code = "process.chdir('/tmp'); console.log(__filename, process.argv[1], __dirname)";
    let expected = format!("/home/user/main.{language} /home/user/main.{language} /home/user\n");
    assert_eq!(printed(language, code).await, expected);
}

async fn the_file_is_there_only_for_code_that_names_it(language: &str) {
    let list = "console.log(require('fs').readdirSync(__dirname).filter(name => name[0] != '.'), process.argv.slice(2), require.main === module)";
    assert_eq!(printed(language, list).await, "[] [] true\n");
    let own = format!("[ 'main.{language}' ] [] true\n");
    for name in ["__filename", "process.argv[1]", "require.main.filename", "require('cluster').isPrimary"] {
        assert_eq!(printed(language, &format!("{list}; {name}")).await, own, "{name}");
    }
}

async fn a_file_of_the_same_name_stays_as_it_is(language: &str) {
    let files = json!([
        {"path": format!("main.{language}"), "content": "exports.name = 'other'"},
        {"path": format!("main2.{language}"), "content": "exports.name = 'second'"},
    ]);
    let code =
        format!("console.log(require('./main.{language}').name, require('./main2.{language}').name, __filename)");
    let answer = run_with(json!({"language": language, "code": code, "files": files})).await;
    assert_eq!(stdout(&answer), format!("other second /home/user/main3.{language}\n"), "{answer}");
}

async fn relative_names_start_at_the_working_directory(language: &str) {
    let files = json!([
        {"path": "data.json", "content": "{\"n\": 1}"},
        {"path": "lib/x.cjs", "content": "module.exports = __filename"},
        {"path": "lib/y.mjs", "content": "export const here = import.meta.url; export default 5"},
    ]);
    let code = "import data from './data.json' with { type: 'json' }\nimport y, { here } from './lib/y.mjs'\n\
                const { readFileSync } = require('fs')\n\
                console.log(data.n, y, here, require('./lib/x.cjs'), (await import('./lib/y.mjs')).default, require('./data').n)\n\
                console.log(readFileSync('data.json', 'utf8') === readFileSync(new URL('./data.json', import.meta.url), 'utf8'))";
    let answer = run_with(json!({"language": language, "code": code, "files": files})).await;
    let expected = "1 5 file:///home/user/lib/y.mjs /home/user/lib/x.cjs 5 1\ntrue\n";
    assert_eq!(stdout(&answer), expected, "{answer}");
}

async fn workers_run_the_same_file(language: &str) {
    let commonjs = "const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads')\n\
                    if (isMainThread) new Worker(__filename, { workerData: 20 }).on('message', message => console.log(message))\n\
                    else parentPort.postMessage([workerData + 1, require.main === module, __filename === process.argv[1]])";
    assert_eq!(printed(language, commonjs).await, "[ 21, true, true ]\n");
    let module = "import { Worker, isMainThread, parentPort } from 'node:worker_threads'\n\
                  import { fileURLToPath } from 'node:url'\nconst __filename = fileURLToPath(import.meta.url)\n\
                  const start = file => new Promise(resolve => new Worker(file).once('message', resolve))\n\
                  if (isMainThread) for (const file of [__filename, new URL(import.meta.url)]) console.log(await start(file))\n\
                  else parentPort.postMessage([import.meta.filename, typeof this])";
    let message = format!("[ '/home/user/main.{language}', 'undefined' ]\n");
    assert_eq!(printed(language, module).await, message.repeat(2));
    // An error in a worker is at the line of the code as sent.
    let code = "const { Worker, isMainThread } = require('worker_threads')\n\n\nif (!isMainThread) throw new Error('no')\n\
                new Worker(__filename).on('error', error => console.log(error.stack.split('\\n')[1])).ref()";
    let frame = printed(language, code).await;
    assert!(frame.contains(&format!("/home/user/main.{language}:4:26")), "{frame}");
}

async fn forks_run_the_same_file(language: &str) {
    let code = "import { fork } from 'node:child_process'\n\
                if (process.argv[2] === 'child') {\n  process.on('message', n => { process.send(n * 2); process.disconnect() })\n\
                } else {\n  const child = fork(process.argv[1], ['child'])\n  child.on('message', n => console.log('twice', n))\n  \
                child.on('exit', code => console.log('exit', code))\n  child.send(21)\n}";
    assert_eq!(printed(language, code).await, "twice 42\nexit 0\n");
    let code = "const { fork } = require('child_process')\n\
                if (process.send) process.exit(require.main === module && typeof exports === 'object' ? 3 : 4)\n\
                fork(__filename).on('exit', code => console.log('exit', code)).ref()";
    assert_eq!(printed(language, code).await, "exit 3\n");
}

async fn clusters_run_the_same_file(language: &str) {
    let code = "const cluster = require('node:cluster'), http = require('node:http')\n\
                if (cluster.isPrimary) {\n  const worker = cluster.fork({ ROLE: 'worker' })\n  \
                worker.on('listening', async ({ port }) => {\n    \
                console.log(await (await fetch(`http://127.0.0.1:${port}`)).text()); worker.kill() })\n  \
                worker.on('exit', (code, signal) => console.log(signal))\n} else {\n  \
                http.createServer((request, response) => response.end(`a ${process.env.ROLE}`)).listen(8000)\n}";
    assert_eq!(printed(language, code).await, "a worker\nSIGTERM\n");
}

async fn a_program_reads_and_starts_its_own_file(language: &str) {
    let code = "const fs = require('fs'), { execFileSync } = require('child_process')\n\
                if (process.argv[2]) { console.log('child', process.argv.slice(2)) }\n\
                else {\n  console.log(fs.readFileSync(__filename, 'utf8').split('\\n').length)\n  \
                process.stdout.write(execFileSync(process.execPath, [__filename, 'x']))\n}";
    assert_eq!(printed(language, code).await, "6\nchild [ 'x' ]\n");
}

async fn a_file_may_require_and_await_in_its_children_too(language: &str) {
    let code = "const { Worker, isMainThread } = require('worker_threads')\nconst { fork } = require('child_process')\n\
                await null\n\
                if (!isMainThread || process.send) console.log(require.main === module, __filename, __dirname, module.id)\n\
                else for (const start of [() => new Worker(__filename), () => fork(__filename)]) await new Promise(done => start().on('exit', done))";
    let line = format!("true /home/user/main.{language} /home/user .\n");
    assert_eq!(printed(language, code).await, line.repeat(2));
}

async fn deferred_work_runs_in_the_order_of_node(language: &str) {
    let code = "setTimeout(() => console.log(6)); setImmediate(() => console.log(7))\n\
                Promise.resolve().then(() => console.log(4)); queueMicrotask(() => console.log(5))\n\
                process.nextTick(() => console.log(3)); console.log(2)";
    assert_eq!(printed(language, code).await, "2\n3\n4\n5\n6\n7\n");
    // In a module, promises come first.
    let code = "import 'node:fs'\nprocess.nextTick(() => console.log(2)); Promise.resolve().then(() => console.log(1))";
    assert_eq!(printed(language, code).await, "1\n2\n");
}

async fn tests_of_node_pass_and_fail(language: &str) {
    let code = "import test, { describe, it } from 'node:test'\nimport assert from 'node:assert/strict'\n\
                describe('sums', () => { it('adds', () => assert.equal(1 + 1, 2)) })\n\
                test('later', async t => { await t.test('part', async () => { await new Promise(resolve => setTimeout(resolve, 20)) }) })\n";
    let output = printed(language, code).await;
    assert!(output.contains("✔ adds") && output.contains("pass 3\n") && output.contains("fail 0\n"), "{output}");
    let failed = run(language, &format!("{code}test('wrong', () => assert.equal(1, 2))\n")).await;
    assert_eq!(failed["outcome"]["message"], "the code exited with status 1", "{failed}");
    assert!(stdout(&failed).contains("fail 1\n"), "{failed}");
}

/// Executes a cell; what it printed, and its value.
async fn cell(sandbox: &Sandbox, language: &str, code: &str) -> (String, Option<String>) {
    let long = if language == "js" { "javascript" } else { "typescript" };
    let lines = sandbox.execute(&json!({"code": code, "language": long})).await;
    assert!(lines.iter().all(|line| line["type"] != "error"), "{code}\n{}", json!(lines));
    let texts = |kind: &str| -> Vec<_> {
        lines.iter().filter(|line| line["type"] == kind).filter_map(|line| line["text"].as_str()).collect()
    };
    (texts("stdout").concat(), texts("result").first().map(|&text| text.to_owned()))
}

async fn a_notebook_uses_for_one_cell(language: &str) {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1", "timeout": 300})).await;
    let code = format!("{RESOURCE}await using a = open('a')\nusing b = open('b')\nconst kept = typeof b\nkept");
    let expected = ("closed b\nclosed later a\n".to_owned(), Some("object".to_owned()));
    let unquoted = |(printed, value): (String, Option<String>)| (printed, value.map(|value| value.replace('\'', "")));
    assert_eq!(unquoted(cell(&sandbox, language, &code).await), expected);
    // What was declared beside it persists, and the name can be used again.
    let code = "using b = open('c')\nkept";
    assert_eq!(unquoted(cell(&sandbox, language, code).await), ("closed c\n".to_owned(), Some("object".to_owned())));
    sandbox.kill().await;
}

async fn a_notebook_takes_whole_files(language: &str) {
    let sandbox = Sandbox::create(json!({"templateID": "code-interpreter-v1", "timeout": 300})).await;
    let first = "import { sep } from 'node:path'\nexport const one = 1\nexport default class {}\nexport function two() { return one + 1 }\n\
                 console.log(sep, import.meta.filename)";
    let name = format!("/ /home/user/main.{language}\n");
    // An import can be repeated, and what a cell exports is a variable of the next one.
    assert_eq!(cell(&sandbox, language, first).await.0, name);
    let second = "import { sep } from 'node:path'\nexport default class extends Array {}\nconsole.log(sep, __filename, two() + one)";
    assert_eq!(cell(&sandbox, language, second).await.0, name.replace('\n', " 3\n"));
    let worker = "const threads = require('worker_threads')\n\
                  if (threads.isMainThread) {\n  const worker = new threads.Worker(__filename)\n  \
                  await new Promise(resolve => worker.on('message', message => { console.log(message); resolve(null) }))\n} else {\n  \
                  threads.parentPort.postMessage(typeof two)\n}";
    assert_eq!(cell(&sandbox, language, worker).await.0, "undefined\n");
    // A file that was written over is the user's own.
    let own = "require('fs').writeFileSync(__filename, 'own'); console.log(__filename)";
    cell(&sandbox, language, own).await;
    let next =
        "console.log(__filename, require('fs').readFileSync(`/home/user/main.${__filename.split('.')[1]}`, 'utf8'))";
    assert_eq!(cell(&sandbox, language, next).await.0, format!("/home/user/main2.{language} own\n"));
    sandbox.kill().await;
}
