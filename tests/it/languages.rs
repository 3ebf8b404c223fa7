//! The contract of every language: each test here is run once per language, with that language's code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::{run, run_with, stderr, stdout, trial};

/// Values that differ from language to language.
#[derive(Clone, Copy)]
struct Each<T> {
    python: T,
    js: T,
    ts: T,
    r: T,
    java: T,
}

impl<T> Each<T> {
    fn of(self, language: &str) -> T {
        match language {
            "python" => self.python,
            "js" => self.js,
            "ts" => self.ts,
            "r" => self.r,
            "java" => self.java,
            other => panic!("no snippet for {other}"),
        }
    }
}

macro_rules! in_each_language {
    ($($name:ident),* $(,)?) => {
        /// Every test, once per language.
        pub(crate) fn trials() -> Vec<Trial> {
            let mut trials = Vec::new();
            for language in ["python", "js", "ts", "r", "java"] {
                $(trials.push(trial(module_path!(), &format!("{}::{language}", stringify!($name)), move || $name(language)));)*
            }
            trials
        }
    };
}

in_each_language![
    the_last_expression_is_the_result_and_prints_are_in_the_log,
    code_without_a_value_has_no_result,
    empty_code_is_ok,
    a_comment_alone_is_ok,
    the_log_is_exactly_what_was_printed,
    unicode_survives_in_code_output_and_results,
    unicode_survives_in_environment_variables,
    unicode_survives_in_file_names_and_contents,
    bytes_that_are_not_utf8_are_replaced,
    an_exception_has_the_text_of_its_language,
    a_syntax_error_names_its_line,
    deep_recursion_is_an_exception,
    an_exit_code_is_an_outcome,
    exit_0_is_ok,
    sleeping_code_is_stopped_in_time_and_keeps_its_output,
    busy_code_is_stopped_in_time_and_keeps_its_output,
    ten_megabytes_of_output_arrive_whole,
    all_bytes_go_in_and_come_out_through_files,
    standard_input_is_what_the_request_says,
    standard_input_is_empty_without_it,
    stdout_and_stderr_are_kept_apart,
    child_processes_print_in_order,
    a_run_finds_nothing_of_the_one_before,
];

async fn the_last_expression_is_the_result_and_prints_are_in_the_log(language: &str) {
    let code = Each {
        python: "print('hi')\n40 + 2",
        js: "console.log('hi')\n40 + 2",
        ts: "const x: number = 40\nconsole.log('hi')\nx + 2",
        r: "cat('hi\\n')\n40 + 2",
        java: "System.out.println(\"hi\");\n40 + 2",
    };
    let answer = run(language, code.of(language)).await;
    let value = Each { python: "42", js: "42", ts: "42", r: "[1] 42", java: "42" }.of(language);
    assert_eq!(answer["outcome"], json!({"kind": "ok", "message": "the code ran to its end"}));
    assert_eq!(answer["results"], json!([value]));
    assert_eq!(answer["outputs"], json!([{"text/plain": value, "main": true}]));
    assert_eq!(answer["logs"], json!({"stdout": ["hi\n"], "stderr": []}));
}

async fn code_without_a_value_has_no_result(language: &str) {
    let code = Each {
        python: "1\nx = 2",
        js: "let x = 2",
        ts: "let x: number = 2",
        r: "x <- 2",
        java: "1;\nint x = 2;\nif (x > 1) { x++; }",
    };
    let answer = run(language, code.of(language)).await;
    assert_ok(&answer);
    assert_eq!(answer["results"], json!([]));
}

async fn empty_code_is_ok(language: &str) {
    assert_nothing_happened(&run(language, "").await);
    assert_nothing_happened(&run(language, "  \n\t\n").await);
}

async fn a_comment_alone_is_ok(language: &str) {
    let code = Each { python: "# nothing", js: "// nothing", ts: "/* nothing */", r: "# nothing", java: "// nothing" };
    assert_nothing_happened(&run(language, code.of(language)).await);
}

async fn the_log_is_exactly_what_was_printed(language: &str) {
    let printed = "a\r\n\tb\\\"'\u{1b}[31mred\u{1b}[0m\n\n\u{feff} ü no newline at the end";
    let code = Each {
        python: "import sys; _ = sys.stdout.write(sys.stdin.read())",
        js: "process.stdout.write(require('fs').readFileSync(0)); 1",
        ts: "import { readFileSync } from 'fs'\nprocess.stdout.write(readFileSync(0) as Buffer); 1",
        r: "text <- readChar(file('stdin', 'rb'), 1000, useBytes = TRUE); cat(text)",
        java: "System.out.print(new String(System.in.readAllBytes()));",
    };
    let answer = run_with(json!({"language": language, "code": code.of(language), "stdin": printed})).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), printed);
    assert_eq!(stderr(&answer), "");
}

async fn unicode_survives_in_code_output_and_results(language: &str) {
    let code = Each {
        python: "é = 'ü😀'\nprint(é)\né",
        js: "const é = 'ü😀'\nconsole.log(é)\né",
        ts: "const é: string = 'ü😀'\nconsole.log(é)\né",
        r: "é <- 'ü😀'\ncat(é, '\\n', sep = '')\né",
        java: "var é = \"ü😀\";\nSystem.out.println(é);\né",
    };
    let answer = run(language, code.of(language)).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), "ü😀\n");
    let value = Each { python: "'ü😀'", js: "'ü😀'", ts: "'ü😀'", r: "[1] \"ü😀\"", java: "\"ü😀\"" };
    assert_eq!(answer["results"], json!([value.of(language)]));
}

async fn unicode_survives_in_environment_variables(language: &str) {
    let code = Each {
        python: "import os\nprint(os.environ['A_Ü'])",
        js: "console.log(process.env['A_Ü'])",
        ts: "console.log(process.env['A_Ü'] as string)",
        r: "cat(Sys.getenv('A_Ü'), '\\n', sep = '')",
        java: "System.out.println(System.getenv(\"A_Ü\"));",
    };
    let request = json!({"language": language, "code": code.of(language), "env": {"A_Ü": "ü😀=x y\n'\"$HOME"}});
    let answer = run_with(request).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), "ü😀=x y\n'\"$HOME\n");
}

async fn unicode_survives_in_file_names_and_contents(language: &str) {
    let code = Each {
        python: "import os\nprint(open('ü 😀/é.txt').read())\nopen('ö', 'w').write('ß')\n\
                 print([n for n in sorted(os.listdir()) if n[0] != '.'], open('ö').read())",
        js: "const fs = require('fs')\nconsole.log(fs.readFileSync('ü 😀/é.txt', 'utf8'))\nfs.writeFileSync('ö', 'ß')\n\
             console.log(fs.readdirSync('.').filter(n => n[0] != '.').sort(), fs.readFileSync('ö', 'utf8'))",
        ts: "import * as fs from 'node:fs'\nconsole.log(fs.readFileSync('ü 😀/é.txt', 'utf8'))\nfs.writeFileSync('ö', 'ß')\n\
             console.log(fs.readdirSync('.').filter((n: string) => n[0] != '.').sort(), fs.readFileSync('ö', 'utf8'))",
        r: "writeLines(readLines('ü 😀/é.txt', warn = FALSE)); cat('ß', file = 'ö')\n\
            cat('[', paste0(\"'\", sort(list.files()), \"'\", collapse = ', '), '] ', readLines('ö', warn = FALSE), '\\n', sep = '')",
        java: "System.out.println(Files.readString(Path.of(\"ü 😀/é.txt\"))); Files.writeString(Path.of(\"ö\"), \"ß\");\n\
               var names = Stream.of(new File(\".\").list()).filter(n -> !n.startsWith(\".\")).sorted();\n\
               System.out.println(names.map(n -> \"'\" + n + \"'\").toList() + \" \" + Files.readString(Path.of(\"ö\")));",
    };
    let files = json!([{"path": "ü 😀/é.txt", "content": "ñ😀"}]);
    let answer = run_with(json!({"language": language, "code": code.of(language), "files": files})).await;
    assert_ok(&answer);
    let list = Each {
        js: "[ 'ö', 'ü 😀' ]",
        ts: "[ 'ö', 'ü 😀' ]",
        python: "['ö', 'ü 😀']",
        r: "['ö', 'ü 😀']",
        java: "['ö', 'ü 😀']",
    };
    assert_eq!(stdout(&answer), format!("ñ😀\n{} ß\n", list.of(language)));
}

async fn bytes_that_are_not_utf8_are_replaced(language: &str) {
    let code = Each {
        python: "import os\n_ = os.write(1, bytes([97, 255, 195, 40, 122]))",
        js: "process.stdout.write(Buffer.from([97, 255, 195, 40, 122]))",
        ts: "process.stdout.write(Buffer.from([97, 255, 195, 40, 122]))",
        r: "cat(rawToChar(as.raw(c(97, 255, 195, 40, 122))))",
        java: "System.out.write(new byte[] {97, (byte) 255, (byte) 195, 40, 122}, 0, 5);",
    };
    let answer = run(language, code.of(language)).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), "a\u{fffd}\u{fffd}(z");
}

async fn an_exception_has_the_text_of_its_language(language: &str) {
    let code = Each {
        python: "print('before')\n\n1/0\nprint('after')",
        js: "console.log('before')\n\nnull.x\nconsole.log('after')",
        ts: "console.log('before')\nconst nothing: any = null\nnothing.x\nconsole.log('after')",
        r: "cat('before\\n')\n\nlog('a')\ncat('after\\n')",
        java: "System.out.println(\"before\");\n\nList.of(1).get(2);\nSystem.out.println(\"after\");",
    };
    let answer = run(language, code.of(language)).await;
    assert_eq!(stdout(&answer), "before\n");
    let null = ("TypeError", "Cannot read properties of null (reading 'x')", "    at [eval1]:3:");
    let (name, value, line) = Each {
        python: ("ZeroDivisionError", "division by zero", "Cell In[1], line 3\n"),
        js: null,
        ts: null,
        r: ("simpleError", "non-numeric argument to mathematical function", "1: log(\"a\") at #3"),
        java: ("java.lang.IndexOutOfBoundsException", "Index: 2 Size: 1", "\tat line 3"),
    }
    .of(language);
    assert_eq!(answer["outcome"], json!({"kind": "exception", "message": format!("{name}: {value}")}));
    assert_eq!(answer["exception"]["name"], name);
    assert_eq!(answer["exception"]["value"], value);
    let traceback = answer["exception"]["traceback"].as_str().expect("text");
    assert_eq!(answer["error"], traceback);
    assert!(traceback.contains(line) && traceback.contains(value), "{traceback}");
    let machinery = ["/opt/", "skipping hidden", "node:", "oncebox", "REPL", "jdk.jshell"];
    assert!(!machinery.iter().any(|word| traceback.contains(word)), "{traceback}");
}

async fn a_syntax_error_names_its_line(language: &str) {
    let code = Each {
        python: "x = 1\ny = = 2\n",
        js: "let x = 1\nlet y = = 2\n",
        ts: "let x: number = 1\nlet y: number = = 2\n",
        r: "x <- 1\ny <- <- 2\n",
        java: "int x = 1;\nint y = = 2;\n",
    };
    let answer = run(language, code.of(language)).await;
    assert_eq!(answer["outcome"]["kind"], "exception");
    let (name, value, place) = Each {
        python: ("SyntaxError", "invalid syntax", "  Cell In[1], line 2\n    y = = 2\n        ^"),
        js: ("SyntaxError", "Unexpected token '='", "[eval1]:2\nlet y = = 2\n        ^"),
        ts: ("SyntaxError", "Expression expected", "[eval1]:2\nlet y: number = = 2\n                ^"),
        r: ("simpleError", "<text>:2:6: unexpected assignment", "2: y <- <-\n        ^"),
        java: (
            "CompileError",
            "illegal start of expression",
            "line 2: error: illegal start of expression\nint y = = 2;\n        ^",
        ),
    }
    .of(language);
    assert_eq!(answer["exception"]["name"], name);
    assert!(answer["exception"]["value"].as_str().is_some_and(|text| text.starts_with(value)), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains(place)), "{answer}");
}

async fn deep_recursion_is_an_exception(language: &str) {
    let code = Each {
        python: "def f(n): return f(n + 1) + 1\nf(0)",
        js: "function f(n) { return f(n + 1) + 1 }\nf(0)",
        ts: "function f(n: number): number { return f(n + 1) + 1 }\nf(0)",
        r: "f <- function(n) f(n + 1) + 1\nf(0)",
        java: "int f(int n) { return f(n + 1) + 1; }\nf(0)",
    };
    let answer = run(language, code.of(language)).await;
    let name = Each {
        python: "RecursionError",
        js: "RangeError",
        ts: "RangeError",
        r: "expressionStackOverflowError",
        java: "java.lang.StackOverflowError",
    };
    assert_eq!(answer["outcome"]["kind"], "exception");
    assert_eq!(answer["exception"]["name"], name.of(language));
    let lines = answer["error"].as_str().expect("text").lines().count();
    assert!(lines < 100, "{lines} lines of traceback");
}

async fn an_exit_code_is_an_outcome(language: &str) {
    let code = Each {
        python: "import sys\nprint('before', end='')\nsys.exit(3)\nprint('after')",
        js: "process.stdout.write('before'); process.exit(3); console.log('after')",
        ts: "process.stdout.write('before' as string); process.exit(3); console.log('after')",
        r: "cat('before')\nquit(status = 3)\ncat('after')",
        java: "System.out.print(\"before\");\nSystem.exit(3);\nSystem.out.print(\"after\");",
    };
    let answer = run(language, code.of(language)).await;
    let message = "the code exited with status 3";
    assert_eq!(answer["outcome"], json!({"kind": "exit", "message": message}));
    assert_eq!(answer["error"], message);
    assert!(answer.get("exception").is_none());
    assert_eq!(stdout(&answer), "before");
}

async fn exit_0_is_ok(language: &str) {
    let code = Each {
        python: "import sys\nprint('before', end='')\nsys.exit(0)\nprint('after')",
        js: "process.stdout.write('before'); process.exit(0); console.log('after')",
        ts: "process.stdout.write('before' as string); process.exit(0); console.log('after')",
        r: "cat('before')\nquit()\ncat('after')",
        java: "System.out.print(\"before\");\nSystem.exit(0);\nSystem.out.print(\"after\");",
    };
    let answer = run(language, code.of(language)).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), "before");
}

async fn sleeping_code_is_stopped_in_time_and_keeps_its_output(language: &str) {
    let code = Each {
        python: "import time\nprint('started')\ntime.sleep(100)",
        js: "console.log('started')\nawait new Promise(resolve => setTimeout(resolve, 100000))",
        ts: "console.log('started')\nawait new Promise<void>(resolve => setTimeout(resolve, 100000))",
        r: "cat('started\\n')\nSys.sleep(100)",
        java: "System.out.println(\"started\");\nThread.sleep(100000);",
    };
    assert_timeout(language, code.of(language)).await;
}

async fn busy_code_is_stopped_in_time_and_keeps_its_output(language: &str) {
    let code = Each {
        python: "print('started')\nwhile True: pass",
        js: "console.log('started')\nwhile (true) {}",
        ts: "console.log('started')\nwhile (true as boolean) {}",
        r: "cat('started\\n')\nrepeat {}",
        java: "System.out.println(\"started\");\nwhile (true) {}",
    };
    assert_timeout(language, code.of(language)).await;
}

async fn assert_timeout(language: &str, code: &str) {
    let answer = run_with(json!({"language": language, "code": code, "timeout_ms": 6000})).await;
    let message = "the code ran longer than timeout_ms = 6000 and was stopped; do less, or allow more time";
    let limit = json!({"name": "timeout_ms", "value": 6000});
    assert_eq!(answer["outcome"], json!({"kind": "timeout", "message": message, "limit": limit}));
    assert_eq!(answer["error"], message);
    assert_eq!(stdout(&answer), "started\n");
    let wall = answer["usage"]["wall_ms"].as_u64().expect("a number");
    assert!((6000..30_000).contains(&wall), "stopped after {wall} ms");
}

async fn ten_megabytes_of_output_arrive_whole(language: &str) {
    let code = Each {
        python: "for n in range(100_000): print(f'{n:0104}')",
        js: "for (let n = 0; n < 100_000; n++) console.log(String(n).padStart(104, '0'))",
        ts: "for (let n: number = 0; n < 100_000; n++) console.log(String(n).padStart(104, '0'))",
        r: "for (n in 0:99999) cat(strrep('0', 104 - nchar(n, 'b')), n, '\\n', sep = '')",
        java: "for (int n = 0; n < 100_000; n++) System.out.println(\"0\".repeat(104 - (\"\" + n).length()) + n);",
    };
    // R writes a number of six digits that ends in zeros like this.
    let code = format!("{}{}", if language == "r" { "options(scipen = 9)\n" } else { "" }, code.of(language));
    let answer = run_with(json!({"language": language, "code": code, "timeout_ms": 120_000})).await;
    assert_ok(&answer);
    let printed = stdout(&answer);
    assert_eq!(printed.len(), 100_000 * 105);
    assert!(
        printed == (0..100_000).map(|n| format!("{n:0104}\n")).collect::<String>(),
        "the output is not what was printed"
    );
}

async fn all_bytes_go_in_and_come_out_through_files(language: &str) {
    let code = Each {
        python: "import base64\ndata = open('in/all.bin', 'rb').read()\nopen('copy.bin', 'wb').write(data)\n\
                 print(base64.b64encode(open('copy.bin', 'rb').read()).decode())",
        js: "const fs = require('fs')\nfs.writeFileSync('copy.bin', fs.readFileSync('in/all.bin'))\n\
             console.log(fs.readFileSync('copy.bin').toString('base64'))",
        ts: "import fs from 'fs'\nconst data: Buffer = fs.readFileSync('in/all.bin')\nfs.writeFileSync('copy.bin', data)\n\
             console.log(fs.readFileSync('copy.bin', 'base64'))",
        r: "writeBin(readBin('in/all.bin', 'raw', 1000), 'copy.bin')\nsystem('base64 -w 0 copy.bin; echo')",
        java: "Files.write(Path.of(\"copy.bin\"), Files.readAllBytes(Path.of(\"in/all.bin\")));\n\
               System.out.println(Base64.getEncoder().encodeToString(Files.readAllBytes(Path.of(\"copy.bin\"))));",
    };
    let bytes = STANDARD.encode((0..=255).collect::<Vec<u8>>());
    let files = json!([{"path": "in/all.bin", "content": bytes, "encoding": "base64"}]);
    let answer = run_with(json!({"language": language, "code": code.of(language), "files": files})).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), format!("{bytes}\n"));
}

/// Code that prints the lines of its standard input, each in brackets.
const BRACKETS: Each<&str> = Each {
    python: "import sys\nfor line in sys.stdin: print(f'[{line.rstrip(chr(10))}]')",
    js: "for await (const line of require('readline').createInterface({ input: process.stdin })) console.log(`[${line}]`)",
    ts: "import { createInterface } from 'node:readline'\n\
         for await (const line of createInterface({ input: process.stdin })) console.log(`[${line as string}]`)",
    r: "for (line in readLines('stdin', warn = FALSE)) cat('[', line, ']\\n', sep = '')",
    java: "var scanner = new Scanner(System.in);\nwhile (scanner.hasNextLine()) System.out.println(\"[\" + scanner.nextLine() + \"]\");",
};

async fn standard_input_is_what_the_request_says(language: &str) {
    let request = json!({"language": language, "code": BRACKETS.of(language), "stdin": "one\n\nzwei ü\nlast"});
    let answer = run_with(request).await;
    assert_ok(&answer);
    assert_eq!(stdout(&answer), "[one]\n[]\n[zwei ü]\n[last]\n");
}

async fn standard_input_is_empty_without_it(language: &str) {
    assert_nothing_happened(&run(language, BRACKETS.of(language)).await);
}

async fn stdout_and_stderr_are_kept_apart(language: &str) {
    let code = Each {
        python: "import sys\nfor n in (1, 2):\n    print('out', n)\n    print('err', n, file=sys.stderr)",
        js: "for (const n of [1, 2]) { console.log('out', n); console.error('err', n) }",
        ts: "for (const n of [1, 2] as number[]) { console.log('out', n); console.error('err', n) }",
        r: "for (n in 1:2) { cat('out ', n, '\\n', sep = ''); message('err ', n) }",
        java: "for (int n = 1; n < 3; n++) { System.out.println(\"out \" + n); System.err.println(\"err \" + n); }",
    };
    let answer = run(language, code.of(language)).await;
    assert_ok(&answer);
    assert_eq!(answer["logs"], json!({"stdout": ["out 1\nout 2\n"], "stderr": ["err 1\nerr 2\n"]}));
}

async fn child_processes_print_in_order(language: &str) {
    let code = Each {
        python: "import subprocess, sys\nfor n in range(20):\n    print('own', n)\n    print('own', n, file=sys.stderr)\n    \
                 subprocess.run(f'echo child {n}; echo child {n} >&2', shell=True)",
        js: "const { execSync } = require('child_process')\nfor (let n = 0; n < 20; n++) {\nconsole.log('own', n); console.error('own', n)\n\
             execSync(`echo child ${n}; echo child ${n} >&2`, { stdio: 'inherit' })\n}",
        ts: "import { execSync } from 'child_process'\nfor (let n = 0; n < 20; n++) {\nconsole.log('own', n); console.error('own', n)\n\
             execSync(`echo child ${n}; echo child ${n} >&2`, { stdio: 'inherit' })\n}",
        r: "for (n in 0:19) {\ncat('own ', n, '\\n', sep = ''); message('own ', n)\n\
            system(sprintf('echo child %d; echo child %d >&2', n, n))\n}",
        java: "for (int n = 0; n < 20; n++) {\nSystem.out.println(\"own \" + n); System.err.println(\"own \" + n);\n\
               new ProcessBuilder(\"sh\", \"-c\", \"echo child \" + n + \"; echo child \" + n + \" >&2\").inheritIO().start().waitFor();\n}",
    };
    let answer = run(language, code.of(language)).await;
    assert_ok(&answer);
    let expected: String = (0..20).map(|n| format!("own {n}\nchild {n}\n")).collect();
    assert_eq!(stdout(&answer), expected);
    assert_eq!(stderr(&answer), expected);
}

async fn a_run_finds_nothing_of_the_one_before(language: &str) {
    let leave = Each {
        python: "trace = 1; import os\nfor path in ('trace', '/tmp/trace'): open(path, 'w').close()\nos.environ['TRACE'] = '1'\nprint('left')",
        js: "var trace = 1; const fs = require('fs')\nfor (const path of ['trace', '/tmp/trace']) fs.writeFileSync(path, '')\n\
             process.env.TRACE = '1'; console.log('left')",
        ts: "var trace: number = 1; import fs from 'fs'\nfor (const path of ['trace', '/tmp/trace']) fs.writeFileSync(path, '')\n\
             process.env.TRACE = '1'; console.log('left')",
        r: "trace_ <- 1; file.create('trace', '/tmp/trace'); Sys.setenv(TRACE = '1'); cat('left\\n')",
        java: "int trace = 1; for (var path : List.of(\"trace\", \"/tmp/trace\")) Files.createFile(Path.of(path));\nSystem.out.println(\"left\");",
    };
    let find = Each {
        python: "import os\nprint('trace' in globals(), os.path.exists('trace'), os.path.exists('/tmp/trace'), 'TRACE' in os.environ)",
        js: "const fs = require('fs')\nconsole.log(typeof trace != 'undefined', fs.existsSync('trace'), fs.existsSync('/tmp/trace'), 'TRACE' in process.env)",
        ts: "import fs from 'fs'\nconsole.log('trace' in globalThis, fs.existsSync('trace'), fs.existsSync('/tmp/trace'), 'TRACE' in process.env)",
        r: "cat(tolower(c(exists('trace_'), file.exists('trace', '/tmp/trace'), Sys.getenv('TRACE') != '')), fill = TRUE)",
        java: "System.out.println(new File(\"trace\").exists() + \" \" + new File(\"/tmp/trace\").exists());\ntrace",
    };
    let left = run(language, leave.of(language)).await;
    assert_ok(&left);
    assert!(stdout(&left).ends_with("left\n"));
    let found = run(language, find.of(language)).await;
    match language {
        // In Java, code with an unknown name does not compile.
        "java" => {
            assert_eq!(found["exception"]["value"], "cannot find symbol\n  symbol:   variable trace");
            assert_eq!(stdout(&found), "false false\n");
        }
        "python" => assert_eq!(stdout(&found), "False False False False\n"),
        _ => assert_eq!(stdout(&found), "false false false false\n"),
    }
}

fn assert_ok(answer: &Value) {
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
}

fn assert_nothing_happened(answer: &Value) {
    assert_ok(answer);
    assert_eq!(answer["results"], json!([]));
    assert_eq!(answer["logs"], json!({"stdout": [], "stderr": []}));
}
