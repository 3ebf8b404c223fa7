//! Features of TypeScript: its types are dropped, and its additions to JavaScript work.

use serde_json::json;

use crate::support::{run, stdout};

trials![
    types_and_interfaces_leave_nothing,
    enums_have_values_and_names,
    generics_are_dropped,
    classes_have_parameter_properties_and_may_be_abstract,
    namespaces_are_objects,
    decorators_run_both_kinds,
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
