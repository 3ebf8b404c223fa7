//! Code that brings about each end, language by language.

use serde_json::json;

use super::Sign::{Quiet, Stderr, Stdout};
use super::{Cause, DISK, End, MEMORY, PROCESSES, REFUSED_MEMORY, SPUN_TIME, TIME, output};

/// A cause in the given languages, with one end for all of them, or with `=>` one end each.
macro_rules! cause {
    ($name:literal, $end:expr, $($language:ident: $code:expr),+ $(,)?) => {
        Cause { name: $name, codes: vec![$((stringify!($language), $code.to_owned(), $end)),+] }
    };
    ($name:literal, $($language:ident: $code:expr => $end:expr),+ $(,)?) => {
        Cause { name: $name, codes: vec![$((stringify!($language), $code.to_owned(), $end)),+] }
    };
}

/// The same shell command in every language; the code fails if the command fails.
fn by_shell(name: &'static str, end: End, command: &str) -> Cause {
    let quoted = json!(command).to_string();
    let node = format!("require('child_process').execFileSync('sh', ['-c', {quoted}], {{ stdio: 'inherit' }})");
    let python = format!("import subprocess\nsubprocess.run(['sh', '-c', {quoted}], check=True)");
    let r = format!("stopifnot(system({quoted}) == 0)");
    let java = format!(
        "if (new ProcessBuilder(\"sh\", \"-c\", {quoted}).inheritIO().start().waitFor() != 0) \
         throw new IOException(\"failed\");"
    );
    let codes = [("python", python), ("js", node.clone()), ("ts", node), ("r", r), ("java", java)];
    Cause { name, codes: codes.map(|(language, code)| (language, code, end)).into() }
}

pub(super) fn all() -> Vec<Cause> {
    [memory(), time(), processes_and_files(), prints(), crashes(), values()].into_iter().flatten().collect()
}

fn memory() -> Vec<Cause> {
    vec![
        cause!("one big allocation",
            js: "Buffer.alloc(600 << 20, 1)" => MEMORY,
            ts: "const block: Buffer = Buffer.alloc(600 << 20, 1)" => MEMORY,
            r: "block <- raw(600e6); block[] <- as.raw(1)" => MEMORY,
            java: "byte[] block = new byte[1 << 30];" => REFUSED_MEMORY),
        cause!("many small allocations", MEMORY,
            js: "const all = []; while (true) all.push({ number: all.length })",
            ts: "const all: object[] = []; while (true) all.push({ number: all.length })",
            r: "all <- list(); repeat all[[length(all) + 1]] <- runif(1e5)",
            java: "var all = new ArrayList<byte[]>();\nwhile (true) all.add(new byte[1000]);"),
        cause!("an allocation of another thread or process", REFUSED_MEMORY,
            python: "from concurrent.futures import ProcessPoolExecutor\ndef take(number): return bytearray(1 << 60)\n\
                     with ProcessPoolExecutor(1) as pool: pool.submit(take, 1).result()",
            java: "IntStream.range(0, 8).parallel().mapToObj(n -> new byte[1 << 30]).toList();"),
        by_shell("the memory of a child", MEMORY, "head -c 600000000 /dev/zero | tail -c 599999999 > /dev/null"),
        by_shell("files in memory", MEMORY, "cat /dev/zero > /tmp/big"),
        by_shell("files in shared memory", MEMORY, "cat /dev/zero > /dev/shm/big"),
    ]
}

fn time() -> Vec<Cause> {
    vec![
        cause!("signals that are ignored", TIME,
            js: "for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(name, () => {})\nvoid setInterval(() => {}, 1000)",
            ts: "for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => {})\nawait new Promise<void>(() => { setInterval(() => {}, 1000) })",
            r: "repeat tryCatch(Sys.sleep(600), interrupt = function(error) NULL)",
            java: "Runtime.getRuntime().addShutdownHook(new Thread(() -> { while (true) {} }));\nThread.sleep(600_000);"),
        cause!("an interpreter that stops itself", TIME,
            js: "process.kill(process.pid, 'SIGSTOP')",
            ts: "process.kill(process.pid, 'SIGSTOP')",
            r: "tools::pskill(Sys.getpid(), 19L); Sys.sleep(1)",
            java: "new ProcessBuilder(\"kill\", \"-STOP\", \"\" + ProcessHandle.current().pid()).start().waitFor(); Thread.sleep(600_000);"),
        by_shell(
            "a daemon beside a sleeping parent",
            TIME,
            "setsid sh -c 'trap \"\" TERM HUP INT; sleep 600' & sleep 600",
        ),
        by_shell(
            "a daemon of a daemon that keeps the output",
            TIME,
            "(setsid sh -c '(sleep 600 &)' &) ; exec sleep 600",
        ),
    ]
}

fn processes_and_files() -> Vec<Cause> {
    vec![
        by_shell("too many processes", PROCESSES, "for number in $(seq 100); do sleep 60 & done"),
        cause!("too many threads", PROCESSES,
            js: "const { Worker } = require('worker_threads')\n\
                 for (let n = 0; n < 100; n++) new Worker('setInterval(() => {}, 1000)', { eval: true, resourceLimits: { maxOldGenerationSizeMb: 2 } })\n\
                 await new Promise(resolve => setTimeout(resolve, 20_000))",
            ts: "import { Worker } from 'worker_threads'\n\
                 for (let n = 0; n < 100; n++) new Worker('setInterval(() => {}, 1000)', { eval: true, resourceLimits: { maxOldGenerationSizeMb: 2 } })\n\
                 await new Promise<void>(resolve => { setTimeout(resolve, 20_000) })",
            java: "for (int n = 0; n < 200; n++) Thread.ofPlatform().daemon().start(() -> { try { Thread.sleep(60_000); } catch (InterruptedException e) {} });"),
        by_shell("a fork bomb of children", PROCESSES, "bomb() { bomb | bomb; }; bomb"),
        cause!("a fork bomb", PROCESSES,
            js: "const { spawn } = require('child_process'); for (let n = 0; n < 100; n++) spawn('sleep', ['60'])",
            ts: "import { spawn } from 'child_process'\nfor (let n = 0; n < 100; n++) spawn('sleep', ['60'])",
            r: "repeat parallel:::mcfork()"),
        // R writes as much of a file as fits, and warns about the rest.
        cause!("one big file", DISK,
            r: "file <- file('/tmp/big', 'wb'); for (n in 1:64) writeBin(raw(2^20), file); close(file); stopifnot(file.size('/tmp/big') == 2^26)",
            js: "const fs = require('fs'), file = fs.openSync('/tmp/big', 'w'); while (true) fs.writeSync(file, Buffer.alloc(1 << 20))",
            ts: "import * as fs from 'fs'\nconst file: number = fs.openSync('/var/tmp/big', 'w')\nwhile (true) fs.writeSync(file, Buffer.alloc(1 << 20))",
            java: "try (var file = new FileOutputStream(\"/tmp/big\")) { while (true) file.write(new byte[1 << 20]); }"),
        by_shell("one big file of a child", DISK, "cat /dev/zero > /home/user/big"),
        by_shell("one big file of a child, that is to outlive it", DISK, "cat /dev/zero > /var/tmp/big"),
        by_shell("one big file of a child, in shared memory", DISK, "cat /dev/zero > /dev/shm/big"),
        by_shell("many empty files of a child, in shared memory", DISK, "cd /dev/shm && seq 100000 | xargs touch"),
        // After the run the disk is as empty as before.
        cause!("one big file that is removed again", DISK,
            python: "import tempfile\nwith tempfile.TemporaryFile() as file:\n    while True: file.write(bytes(1 << 20))",
            js: "const fs = require('fs'), file = fs.openSync('/tmp/big', 'w'), block = Buffer.alloc(1 << 20)\n\
                 try { while (true) fs.writeSync(file, block) } finally { fs.closeSync(file); fs.unlinkSync('/tmp/big') }",
            ts: "import { open, rm } from 'fs/promises'\nconst file = await open('/var/tmp/big', 'w')\n\
                 try { while (true) await file.write(Buffer.alloc(1 << 20)) } finally { await file.close(); await rm('/var/tmp/big') }",
            java: "import java.nio.ByteBuffer;\nimport java.nio.channels.FileChannel;\n\
                   try (var file = FileChannel.open(Path.of(\"/tmp/big\"), StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE, \
                   StandardOpenOption.DELETE_ON_CLOSE)) { while (true) file.write(ByteBuffer.allocate(1 << 20)); }"),
        cause!("many empty files", DISK,
            js: "const fs = require('fs'); for (let n = 0; n < 100_000; n++) fs.closeSync(fs.openSync(`/tmp/${n}`, 'w'))",
            ts: "import * as fs from 'fs'\nfor (let n = 0; n < 100_000; n++) fs.mkdirSync(`/home/user/${n}`)",
            r: "for (n in 1:100000) close(file(paste0('/tmp/', n), 'w'))",
            java: "for (int n = 0; n < 100_000; n++) Files.createFile(Path.of(\"/tmp/\" + n));"),
        // R itself allows 128 at most.
        cause!("too many open files",
            python: "files = [open('/dev/null') for _ in range(5000)]" => End::Exception("Too many open files"),
            js: "const fs = require('fs'); for (let n = 0; n < 5000; n++) fs.openSync('/dev/null')" => End::Exception("EMFILE"),
            ts: "import * as fs from 'fs'\nfor (let n = 0; n < 5000; n++) fs.openSync('/dev/null')" => End::Exception("EMFILE"),
            java: "var files = new ArrayList<FileInputStream>(); for (int n = 0; n < 5000; n++) files.add(new FileInputStream(\"/dev/null\"));"
                => End::Exception("Too many open files")),
    ]
}

fn prints() -> Vec<Cause> {
    vec![
        cause!("endless output", output(Stdout("0123456789\n")),
            js: "while (true) console.log('0123456789')",
            ts: "while (true as boolean) console.log('0123456789' as string)",
            r: "repeat cat('0123456789\\n')",
            java: "while (true) System.out.println(\"0123456789\");"),
        cause!("endless complaints",
            js: "while (true) console.error('0123456789')" => output(Stderr("0123456789\n")),
            ts: "while (true as boolean) process.stderr.write('0123456789')" => output(Stderr("0123456789")),
            r: "repeat cat(strrep('0123456789', 100), file = stderr())" => output(Stderr("0123456789")),
            java: "while (true) System.err.print(\"0123456789\");" => output(Stderr("0123456789"))),
        cause!("a line of 100 megabytes", output(Stdout("x")),
            js: "process.stdout.write('x'.repeat(100_000_000))",
            ts: "console.log('x'.repeat(100_000_000))",
            r: "cat(strrep('x', 1e8))",
            java: "System.out.print(\"x\".repeat(100_000_000));"),
        cause!("a giant value", output(Quiet),
            js: "'x'.repeat(5_000_000)",
            ts: "'x'.repeat(5_000_000) as string",
            r: "strrep('x', 5e6)",
            java: "\"x\".repeat(5_000_000)"),
        cause!("a giant exception", End::Exception("xxxx"),
            python: "raise ValueError('x' * 300_000)",
            js: "throw new Error('x'.repeat(300_000))",
            ts: "throw new Error('x'.repeat(300_000))",
            r: "stop(strrep('x', 3e5))",
            java: "throw new RuntimeException(\"x\".repeat(300_000));"),
        by_shell(
            "output of a child of a child that goes on",
            output(Stdout("0123456789\n")),
            "(yes 0123456789 &) ; sleep 600",
        ),
        by_shell("a child that prints after the end", End::Printed(""), "(sleep 20; echo late) & :"),
    ]
}

fn crashes() -> Vec<Cause> {
    vec![
        cause!("a crash", End::Signal(11),
            js: "process.kill(process.pid, 'SIGSEGV')",
            ts: "process.kill(process.pid, 'SIGSEGV')",
            r: "tools::pskill(Sys.getpid(), 11L); Sys.sleep(10)"),
        cause!("a crash of native code", End::Signal(6),
            java: "import java.lang.foreign.*;\nMemorySegment.ofAddress(8).reinterpret(8).get(ValueLayout.JAVA_LONG, 0);"),
        cause!("an interpreter that is killed", End::Signal(9),
            js: "process.kill(process.pid, 'SIGKILL')",
            ts: "process.kill(process.pid, 'SIGKILL')",
            r: "tools::pskill(Sys.getpid(), 9L); Sys.sleep(10)",
            java: "new ProcessBuilder(\"kill\", \"-9\", \"\" + ProcessHandle.current().pid()).start().waitFor(); Thread.sleep(10_000);"),
        cause!("everything is killed", End::Signal(9),
            js: "require('child_process').spawnSync('sh', ['-c', 'kill -9 -1'])",
            ts: "require('child_process').spawnSync('sh', ['-c', 'kill -9 -1'])",
            r: "system('kill -9 -1'); Sys.sleep(10)",
            java: "new ProcessBuilder(\"sh\", \"-c\", \"kill -9 -1\").start().waitFor(); Thread.sleep(10_000);"),
        cause!("output that is closed",
            js: "const fs = require('fs'); fs.closeSync(1); fs.closeSync(2); 6 * 7" => End::Value("42"),
            ts: "import * as fs from 'fs'\nfs.closeSync(1); fs.closeSync(2)\n6 * 7" => End::Value("42"),
            r: "invisible(parallel:::closeStdout()); invisible(parallel:::closeStderr()); 6 * 7" => End::Value("[1] 42"),
            java: "System.out.close(); System.err.close();\n6 * 7" => End::Value("42")),
        cause!("descriptors of output that are closed", End::Value("42"),
            java: "import java.lang.foreign.*;\nvar linker = Linker.nativeLinker();\n\
                   var close = linker.downcallHandle(linker.defaultLookup().find(\"close\").get(), FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_INT));\n\
                   int failed = (int) close.invokeExact(1) + (int) close.invokeExact(2);\n6 * 7 + failed"),
        cause!("an exit from elsewhere", End::Exit(4),
            python: "import os, threading, time\nthreading.Timer(0.1, os._exit, (4,)).start()\ntime.sleep(20)",
            js: "setTimeout(() => process.exit(4), 50)\nawait new Promise(() => { setInterval(() => {}, 1000) })",
            ts: "await Promise.resolve().then(() => process.exit(4))",
            r: "local(tryCatch(quit(status = 4), finally = cat('')))",
            java: "new Thread(() -> System.exit(4)).start();\nThread.sleep(20_000);"),
        cause!("an exception in another thread",
            python: "import threading\ndef fail(): raise ValueError('elsewhere')\n\
                     thread = threading.Thread(target=fail); thread.start(); thread.join()"
                => End::Complaint("ValueError: elsewhere\n"),
            js: "new (require('worker_threads').Worker)('throw new Error(\"elsewhere\")', { eval: true })"
                => End::Exception("elsewhere"),
            ts: "import { Worker } from 'worker_threads'\nnew Worker('throw new Error(\"elsewhere\")', { eval: true })"
                => End::Exception("elsewhere")),
        cause!("an exception after the code's own end", End::Exception("elsewhere"),
            js: "void setTimeout(() => { throw new Error('elsewhere') }, 10)",
            ts: "void setTimeout(() => { throw new Error('elsewhere') }, 10)"),
    ]
}

fn values() -> Vec<Cause> {
    vec![
        // No limit was hit, even if the message mentions one.
        cause!("words of a lack of memory",
            python: "raise MemoryError('Unable to allocate 8 GiB')" => End::Exception("MemoryError"),
            js: "throw new RangeError('Array buffer allocation failed')" => End::Exception("Array buffer allocation failed"),
            ts: "throw Object.assign(new Error('no memory'), { code: 'ERR_MEMORY_ALLOCATION_FAILED' })" => End::Exception("no memory"),
            r: "stop('cannot allocate a seat')" => End::Exception("cannot allocate a seat"),
            java: "throw new OutOfMemoryError(\"Java heap space\");" => End::Exception("Java heap space")),
        cause!("words of a full disk",
            python: "raise OSError(28, 'No space left on device')" => End::Exception("No space left on device"),
            js: "throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', errno: -28, syscall: 'write' })"
                => End::Exception("ENOSPC"),
            ts: "throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })" => End::Exception("no space"),
            r: "stop('No space left on device')" => End::Exception("No space left on device"),
            java: "throw new IOException(\"No space left on device\");" => End::Exception("No space left on device")),
        cause!("an object that cannot be shown", End::Value("[object that cannot be inspected: broken]"),
            js: "({ [require('util').inspect.custom]() { throw new Error('broken') } })",
            ts: "({ [require('util').inspect.custom](): string { throw new Error('broken') } })"),
        cause!("a value that cannot be shown", End::Exception("broken"),
            python: "class Broken:\n    def __repr__(self): raise ValueError('broken')\nBroken()",
            r: "print.abuse <- function(x, ...) stop('broken')\nstructure(1, class = 'abuse')",
            java: "class Broken { public String toString() { throw new IllegalStateException(\"broken\"); } }\nnew Broken()"),
        cause!("a value whose text never ends", SPUN_TIME,
            python: "class Endless:\n    def __repr__(self):\n        while True: pass\nEndless()",
            js: "({ [require('util').inspect.custom]() { while (true) {} } })",
            ts: "({ [require('util').inspect.custom](): string { while (true) {} } })",
            r: "print.abuse <- function(x, ...) repeat {}\nstructure(1, class = 'abuse')",
            java: "class Endless { public String toString() { while (true) {} } }\nnew Endless()"),
        cause!("a value that is not a number",
            python: "float('nan')" => End::Value("nan"),
            js: "NaN" => End::Value("NaN"),
            ts: "NaN as number" => End::Value("NaN"),
            r: "NaN" => End::Value("[1] NaN"),
            java: "Double.NaN" => End::Value("NaN")),
        cause!("a value without bounds",
            python: "[float('inf'), -float('inf')]" => End::Value("[inf, -inf]"),
            js: "[Infinity, -Infinity]" => End::Value("[ Infinity, -Infinity ]"),
            ts: "[Infinity, -0]" => End::Value("[ Infinity, -0 ]"),
            r: "c(Inf, -Inf)" => End::Value("[1]  Inf -Inf"),
            java: "Double.POSITIVE_INFINITY" => End::Value("Infinity")),
        cause!("a value within itself",
            python: "loop = []\nloop.append(loop)\nloop" => End::Value("[[...]]"),
            js: "const loop = {}; loop.loop = loop; loop" => End::Value("<ref *1> { loop: [Circular *1] }"),
            ts: "const loop: any = {}; loop.loop = loop; loop" => End::Value("<ref *1> { loop: [Circular *1] }"),
            // Only environments can contain themselves. R shows the address of other values.
            r: "loop <- globalenv(); as.list(loop)['loop']" => End::Value("$loop\n<environment: R_GlobalEnv>\n"),
            java: "var loop = new ArrayList<Object>(); loop.add(loop);\nloop" => End::Value("[(this Collection)]")),
        cause!("half a character",
            python: "'a\\ud800b'" => End::Value("'a\\ud800b'"),
            js: "'a\\ud800b'" => End::Value("'a\\ud800b'"),
            ts: "'a\\ud800b'" => End::Value("'a\\ud800b'"),
            r: "'a\\xe4b'" => End::Value("[1] \"a\\xe4b\""),
            java: "\"a\\ud800b\"" => End::Value("\"a?b\"")),
        cause!("half a character that is printed",
            python: "print('a\\ud800b')" => End::Exception("surrogates not allowed"),
            js: "console.log('a\\ud800b')" => End::Printed("a\u{fffd}b\n"),
            ts: "console.log('a\\ud800b')" => End::Printed("a\u{fffd}b\n"),
            r: "cat('a\\xe4b\\n')" => End::Printed("a\u{fffd}b\n"),
            java: "System.out.println(\"a\\ud800b\");" => End::Printed("a?b\n")),
        cause!("half a character in an exception",
            python: "raise ValueError('a\\ud800b')" => End::Exception("\"a?b\""),
            js: "throw new Error('a\\ud800b')" => End::Exception("\"a\u{fffd}b\""),
            ts: "throw new Error('a\\ud800b')" => End::Exception("\"a\u{fffd}b\""),
            r: "stop('a\\xe4b')" => End::Exception("\"a\u{fffd}b\""),
            java: "throw new RuntimeException(\"a\\ud800b\");" => End::Exception("\"a?b\"")),
        cause!("zero bytes in a value",
            python: "'a\\0b'" => End::Value("'a\\x00b'"),
            js: "'a\\0b'" => End::Value("'a\\x00b'"),
            ts: "'a\\0b'" => End::Value("'a\\x00b'"),
            java: "\"a\\0b\"" => End::Value("\"a\\000b\"")),
        cause!("control characters in an exception", End::Exception("\"a\\u001b[2J\\r\\b"),
            python: "raise ValueError('a\\x1b[2J\\r\\x08\\0b')", js: "throw new Error('a\\x1b[2J\\r\\x08\\0b')",
            ts: "throw new Error('a\\x1b[2J\\r\\x08\\0b')", r: "stop('a\\033[2J\\r\\bb')",
            java: "throw new RuntimeException(\"a\\033[2J\\r\\bb\");"),
    ]
}
