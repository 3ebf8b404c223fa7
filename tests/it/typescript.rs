//! Features of TypeScript: its types are dropped, and its additions to JavaScript work.

use serde_json::json;

use crate::support::{run, run_with, stdout};

trials![
    types_and_interfaces_leave_nothing,
    enums_have_values_and_names,
    generics_are_dropped,
    classes_have_parameter_properties_and_may_be_abstract,
    namespaces_are_objects,
    decorators_run_both_kinds,
    decorators_may_seal_classes_and_define_properties,
    modules_are_imported_and_exported_as_in_commonjs,
    workers_and_forks_run_the_same_typescript,
    files_of_typescript_are_imported,
    types_can_be_imported,
    errors_have_the_lines_of_the_typescript,
    a_package_that_is_not_there_is_nodes_own_error,
    await_works_at_top_level,
];

async fn value(code: &str) -> String {
    let answer = run("ts", code).await;
    assert_eq!(answer["outcome"]["kind"], "ok", "{answer}");
    answer["results"][0].as_str().unwrap_or_else(|| panic!("no value: {answer}")).to_owned()
}

async fn types_and_interfaces_leave_nothing() {
    let code = "interface Named { name: string; age?: number }\ntype Maybe = Named | null\ndeclare const elsewhere: number\n\
                const named: Named = { name: 'x' }\nconst maybe: Maybe = named satisfies Named\n\
                (maybe as Named)!.name.length as unknown as number";
    assert_eq!(value(code).await, "1");
    let answer = run("ts", "type Alone = { a: number }").await;
    assert_eq!((&answer["outcome"]["kind"], &answer["results"]), (&json!("ok"), &json!([])));
    // Transpiled, not checked, as in tsx, Deno or Node itself.
    assert_eq!(value("const n: number = 'no number' as any\nn").await, "'no number'");
}

async fn enums_have_values_and_names() {
    let code = "enum Color { Red, Green = 5, Blue, Named = 'name' }\nconst enum Inline { A = 7 }\n\
                [Color.Red, Color.Blue, Color[5], Color.Named, Inline.A]";
    assert_eq!(value(code).await, "[ 0, 6, 'Green', 'name', 7 ]");
}

async fn generics_are_dropped() {
    let code = "function first<T extends { n: number }, U = T>(items: T[]): U { return items[0] as unknown as U }\n\
                const arrow = <T,>(value: T): T => value\nclass Box<T> { constructor(readonly value: T) {} }\n\
                function over(a: string): string\nfunction over(a: number): number\nfunction over(a: any) { return a }\n\
                [first<{ n: number }>([{ n: 1 }]).n, arrow<string>('a'), new Box<number[]>([2]).value, over(3)]";
    assert_eq!(value(code).await, "[ 1, 'a', [ 2 ], 3 ]");
}

async fn classes_have_parameter_properties_and_may_be_abstract() {
    let code = "abstract class Shape {\n  constructor(protected readonly name: string) {}\n  abstract area(): number\n  \
                toString(): string { return `${this.name} of ${this.area()}` }\n}\n\
                class Square extends Shape {\n  constructor(private side: number) { super('square') }\n  \
                override area() { return this.side ** 2 }\n}\n`${new Square(3)}`";
    assert_eq!(value(code).await, "'square of 9'");
}

async fn namespaces_are_objects() {
    let code = "namespace Outer { export const one = 1; export namespace Inner { export const two = one + 1 } }\nOuter.Inner.two";
    assert_eq!(value(code).await, "2");
}

async fn decorators_run_both_kinds() {
    let standard = "function traced(method: any, context: ClassMethodDecoratorContext) {\n  \
                    return function (this: any, ...given: any[]) { console.log('calls', context.name); return method.apply(this, given) }\n}\n\
                    class Greeter { @traced hello(to: string) { return 'hello ' + to } }\nnew Greeter().hello('you')";
    let legacy = "function traced(target: any, name: string, descriptor: PropertyDescriptor) {\n  const method = descriptor.value\n  \
                  descriptor.value = function (...given: any[]) { console.log('calls', name); return method.apply(this, given) }\n}\n\
                  class Greeter { @traced hello(to: string) { return 'hello ' + to } }\nnew Greeter().hello('you')";
    for code in [standard, legacy] {
        let answer = run("ts", code).await;
        assert_eq!(stdout(&answer), "calls hello\n", "{answer}");
        assert_eq!(answer["results"], json!(["'hello you'"]));
    }
}

async fn decorators_may_seal_classes_and_define_properties() {
    let code = "function sealed(constructor: Function) { Object.seal(constructor); Object.seal(constructor.prototype) }\n\
                @sealed class Report { constructor(public title: string) {} }\n[Object.isSealed(Report), new Report('x').title]";
    assert_eq!(value(code).await, "[ true, 'x' ]");
    let code = "function atLeast(n: number) {\n  return function (target: any, propertyKey: string) {\n    let value: string\n    \
                Object.defineProperty(target, propertyKey, { get: () => value, set(given: string) {\n      \
                if (given.length < n) throw new RangeError(`${propertyKey} is too short`)\n      value = given } })\n  }\n}\n\
                class User { @atLeast(3) name!: string; constructor(name: string) { this.name = name } }\n\
                try { new User('ab') } catch (error) { console.log((error as Error).message) }\nnew User('abc').name";
    let answer = run("ts", code).await;
    assert_eq!((stdout(&answer).as_str(), &answer["results"]), ("name is too short\n", &json!(["'abc'"])), "{answer}");
    // An error in a decorator has no frames of the transpiler's functions.
    let code = "function no(_: unknown, context: ClassMethodDecoratorContext) {\n  throw new TypeError(`not ${String(context.name)}`)\n}\n\
                class A {\n  @no method() {}\n}";
    let error = run("ts", code).await["error"].as_str().expect("text").to_owned();
    assert!(error.starts_with("TypeError: not method\n    at no ([eval1]:2:9)\n"), "{error}");
    let lines: Vec<_> = error.lines().skip(1).filter_map(|line| line.rsplit(':').nth(1)?.parse().ok()).collect();
    assert!(lines.iter().all(|line: &u32| *line <= 6), "{error}");
}

async fn modules_are_imported_and_exported_as_in_commonjs() {
    let code = "// ü: a character of two bytes\nimport fs = require(\"node:fs\");\nimport type http = require('http')\n\
                export import path = require('path')\n\
                namespace Outer { export namespace Inner { export const one: number = 1 } }\nimport Inner = Outer.Inner\n\
                const text: string = `import x = require('y')`\nconsole.log(path.basename('/a/b'), Inner.one, text)\n\
                class Store { constructor(readonly root = '/') {} has() { return fs.existsSync(this.root) } }\n\
                console.log(new Store().has())\nexport = Store";
    let answer = run("ts", code).await;
    assert_eq!(stdout(&answer), "b 1 import x = require('y')\ntrue\n", "{answer}");
    assert_eq!(answer["results"], json!(["[class Store]"]));
    let code = "import fs = require('fs')\nexport = {}\nfs.readFileSync(null as any)";
    let answer = run("ts", code).await;
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("[eval1]:3:4")), "{answer}");
}

async fn workers_and_forks_run_the_same_typescript() {
    let code = "import { Worker, isMainThread, parentPort } from 'node:worker_threads'\nimport { fork } from 'node:child_process'\n\
                import fs = require('node:fs')\nenum Level { Low = 1, High = Low * 10 }\nnamespace Space { export const two: number = 2 }\n\
                function traced(method: any, context: ClassMethodDecoratorContext) { return method }\n\
                class Job { constructor(private readonly n: number) {} @traced run(): number { return this.n * Space.two } }\n\
                const result = [Level[10], new Job(Level.High).run(), fs.existsSync(__filename)]\n\
                if (!isMainThread) parentPort!.postMessage(result)\nelse if (process.send) { process.send(result); process.disconnect() }\n\
                else {\n  console.log(await new Promise(resolve => new Worker(new URL(import.meta.url)).once('message', resolve)))\n  \
                console.log(await new Promise(resolve => fork(__filename).once('message', resolve)))\n}";
    let answer = run("ts", code).await;
    assert_eq!(stdout(&answer), "[ 'High', 20, true ]\n".repeat(2), "{answer}");
}

async fn files_of_typescript_are_imported() {
    let shapes = "export enum Kind { Round = 'round' }\n\nexport interface Shape { kind: Kind }\n\
                  export class Circle implements Shape {\n  kind = Kind.Round\n  constructor(public r: number) {}\n  \
                  fail(): never { throw new Error('no') }\n}";
    let files = json!([
        {"path": "shapes.ts", "content": shapes},
        {"path": "old.cts", "content": "import os = require('os')\nexport = os.EOL.length"},
    ]);
    let code = "import { Circle, Kind, type Shape } from './shapes.ts'\nconst shape: Shape = new Circle(2)\n\
                console.log(shape.kind === Kind.Round, require('./old.cts'), (await import('./shapes.ts')).Kind.Round)\nnew Circle(1).fail()";
    let answer = run_with(json!({"language": "ts", "code": code, "files": files})).await;
    assert_eq!(stdout(&answer), "true 1 round\n", "{answer}");
    let trace = "Error: no\n    at Circle.fail (file:///home/user/shapes.ts:7:25)\n    at [eval1]:4:15";
    assert_eq!(answer["error"], trace);
}

async fn types_can_be_imported() {
    let code = "import type { Server } from 'http'\nimport { type Stats, statSync } from 'node:fs'\n\
                const stats: Stats = statSync('/')\nconst servers: Server[] = []\nstats.isDirectory() && servers.length == 0";
    assert_eq!(value(code).await, "true");
}

async fn errors_have_the_lines_of_the_typescript() {
    let code = "interface Long {\n  a: number\n  b: number\n}\nenum Kind { A, B }\n\
                function fail(n: number): never {\n  throw new RangeError(`no ${n as number}`)\n}\nfail(1)";
    let answer = run("ts", code).await;
    assert_eq!(answer["error"], "RangeError: no 1\n    at fail ([eval1]:7:9)\n    at [eval1]:9:1");
}

async fn a_package_that_is_not_there_is_nodes_own_error() {
    let answer = run("ts", "import axios from 'axios'\naxios").await;
    let error = answer["error"].as_str().expect("text");
    assert!(error.starts_with("Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'axios'"), "{error}");
    let answer = run("ts", "const axios = require('axios')").await;
    let error = answer["error"].as_str().expect("text");
    assert!(error.starts_with("Error: Cannot find module 'axios'\n"), "{error}");
}

async fn await_works_at_top_level() {
    let code = "const later: Promise<number> = new Promise<number>(resolve => setTimeout(() => resolve(3), 10));\n(await later) + 1";
    assert_eq!(value(code).await, "4");
}
