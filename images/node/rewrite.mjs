// Makes what a file may contain work in a script: `import` and `export` declarations, `import.meta`, and at top level
// `await`, `using`, `return` and the `this` of a file.
//
// Such code becomes the body of a function. In a notebook its top-level declarations are moved out of that function, as in
// Node's REPL, so that they persist. Every edit keeps the line structure, and `locate` undoes the edits that move columns,
// so that stack traces refer to the code as written.
import { Parser } from './node_modules/acorn/dist/acorn.mjs';
import { base, full, recursive } from './node_modules/acorn-walk/dist/walk.mjs';

const { JSON } = globalThis;

const LINE_BREAK = /\r\n?|[\n\u2028\u2029]/;

const options = {
  ecmaVersion: 'latest',
  allowAwaitOutsideFunction: true,
  allowImportExportEverywhere: true,
  allowHashBang: true,
  preserveParens: true,
};

const BodyParser = Parser.extend(
  (Base) =>
    class extends Base {
      /** The top level becomes the body of a function, where `using` is allowed. */
      get allowUsing() {
        return super.allowUsing || this.scopeStack.length === 1;
      }
    },
);

/**
 * Returns `{ code, locate, isFunction, isAsync }`, or null for code that needs no rewriting. With `isFunction`, the value
 * of the code is undefined or in an object, `{ value }`; with `isAsync`, it is a promise of that. Throws acorn's
 * SyntaxError.
 *
 * With `persist`, declarations remain for later executions. Without, the code is a whole file, as Node runs one: strict
 * if it is a module, and with another `this` than the global object. With `strictImports`, importing a name that a module
 * does not export is an error, as in JavaScript; in TypeScript such a name may be a type. `using`, if given, maps the names
 * of top-level constants to the keyword that was theirs, `using` or `await using`.
 */
export function rewrite(code, { persist, strictImports, using }) {
  const program = BodyParser.parse(code, { ...options, allowReturnOutsideFunction: !persist });
  const rewriter = new Rewriter(code, persist, strictImports, using);
  rewriter.program(program);
  if (rewriter.isFunction) return rewriter.result();
  return persist || rewriter.edits.length === 0 ? null : rewriter.result();
}

class Rewriter {
  isFunction = false;
  isAsync = false;
  isModule = false;
  isStrict = false;
  hasVars = false;
  edits = [];
  /** Names to declare outside of the function. Imports become `var`, because a later execution may repeat them. */
  lets = new Set();
  vars = new Set();
  /** Statements to run before everything else in the function. */
  prologue = [];

  constructor(code, persist, strictImports, using) {
    this.code = code;
    this.persist = persist;
    this.strictImports = strictImports;
    this.using = using;
  }

  program(program) {
    full(program, (node) => {
      if (node.type === 'MetaProperty' && node.meta.name === 'import') this.importMeta(node);
    });
    for (const node of program.body) this.statement(node);
    if (!this.persist) {
      recursive(program, this, thisVisitors);
      if (this.hasVars) recursive(program, this, globalVisitors);
    }
    if (!this.isFunction) return;
    this.isStrict = (this.isModule && !this.persist) || program.body.some(({ directive }) => directive === 'use strict');
    if (this.code.startsWith('#!')) this.edits.push({ start: 0, end: 2, text: '//' });
    const last = program.body.findLast((node) => !isInert(node));
    if (last?.type === 'ExpressionStatement') this.wrap(last.expression, 'return { value: (', ') }');
    for (const node of program.body) {
      if (node.type !== 'ExportDefaultDeclaration' || isDeclaration(node.declaration)) continue;
      const [before, after] = node === last ? ['return { value: ', '.default };'] : ['', ';'];
      this.wrap(node.declaration, before, after);
    }
  }

  result() {
    let [head, tail] = ['', ''];
    if (this.isFunction) {
      const declarations = declare('let', this.lets) + declare('var', this.vars);
      const directive = this.isStrict ? "'use strict'; " : '';
      head = `${declarations}(${this.isAsync ? 'async ' : ''}() => { ${directive}${this.prologue.join(' ')} `;
      tail = '\n})()';
    }
    this.edits.unshift({ start: 0, end: 0, text: head });
    // At the same position, an insertion comes before a replacement.
    const edits = this.edits.sort((a, b) => a.start - b.start || (a.end > a.start) - (b.end > b.start));
    let output = '';
    let position = 0;
    for (const { start, end, text } of edits) {
      output += this.code.slice(position, start) + text;
      position = end;
    }
    const code = output + this.code.slice(position) + tail;
    return { code, locate: locator(this.code, edits), isFunction: this.isFunction, isAsync: this.isAsync };
  }

  becomeFunction(isAsync) {
    this.isFunction = true;
    this.isAsync ||= isAsync;
  }

  /** Rewrites a top-level statement: in a notebook, every declaration there persists. */
  statement(node) {
    switch (node.type) {
      case 'ImportDeclaration':
        return this.importDeclaration(node);
      case 'ExportAllDeclaration':
      case 'ExportNamedDeclaration':
      case 'ExportDefaultDeclaration':
        return this.exportDeclaration(node);
      case 'FunctionDeclaration':
        if (!this.persist) return;
        this.vars.add(node.id.name);
        this.prologue.push(`globalThis.${node.id.name} = ${node.id.name};`);
        return;
      case 'ClassDeclaration':
        if (!this.persist) break;
        this.lets.add(node.id.name);
        this.insert(node.start, `${node.id.name} = `);
        this.insert(node.end, ';');
        break;
      case 'VariableDeclaration':
        if (this.using?.has(node.declarations[0].id.name)) {
          node.kind = this.using.get(node.declarations[0].id.name);
          this.edits.push({ start: node.start, end: node.start + 'const'.length, text: node.kind });
        }
        if (node.kind === 'using') this.becomeFunction(false);
        if (this.persist && (node.kind === 'let' || node.kind === 'const')) this.variables(node, this.lets);
        break;
    }
    recursive(node, this, visitors);
  }

  importDeclaration(node) {
    this.becomeFunction(true);
    this.isModule = true;
    this.blank(node.start, node.end);
    const module = `await import(${node.source.raw}${attributes(node)})`;
    const bindings = [];
    let namespace = null;
    for (const { type, local, imported } of node.specifiers) {
      if (this.persist) this.vars.add(local.name);
      if (type === 'ImportNamespaceSpecifier') {
        namespace = local.name;
        continue;
      }
      const name = type === 'ImportDefaultSpecifier' ? 'default' : (imported.name ?? imported.value);
      bindings.push(`${JSON.stringify(name)}: ${local.name}${this.strictImports ? missing(name, node.source.value) : ''}`);
    }
    const assignments = [];
    if (namespace) assignments.push(`${namespace} = ${module}`);
    if (bindings.length) assignments.push(`{ ${bindings.join(', ')} } = ${namespace ?? module}`);
    if (!assignments.length) this.prologue.push(`${module};`);
    else if (this.persist) this.prologue.push(`(${assignments.join(', ')});`);
    else this.prologue.push(`const ${assignments.join(', ')};`);
  }

  /** Rewrites an export as a plain declaration, because nothing can import from an execution. */
  exportDeclaration(node) {
    this.becomeFunction(true);
    this.isModule = true;
    if (node.source) this.prologue.push(`await import(${node.source.raw}${attributes(node)});`);
    if (!node.declaration) return this.blank(node.start, node.end);
    this.blank(node.start, node.declaration.start);
    if (isDeclaration(node.declaration)) return this.statement(node.declaration);
    // As a member, an anonymous function or class gets the name `default`, as in a module.
    this.wrap(node.declaration, '({ default: ', ' })');
    recursive(node.declaration, this, visitors);
  }

  importMeta({ start, end }) {
    this.becomeFunction(true);
    this.isModule = true;
    this.edits.push({ start, end, text: 'import_meta'.padEnd(end - start) });
  }

  /**
   * Turns a declaration into assignments of the same width: `const x = 1` into `!   (x = 1)`. The operator `!` keeps
   * the assignment from continuing a line before it that has no semicolon.
   */
  variables(node, hoisted, isLoopHead = false) {
    for (const { id } of node.declarations) for (const name of boundNames(id)) hoisted.add(name);
    const { start, kind } = node;
    if (isLoopHead) return this.edits.push({ start, end: start + kind.length, text: ' '.repeat(kind.length) });
    this.edits.push({ start, end: start + kind.length, text: '!('.padStart(kind.length).replace(/^( +)!/, '!$1') });
    for (const { id, init } of node.declarations) {
      if (!init && kind === 'let') this.insert(id.end, ' = undefined');
    }
    this.insert(node.declarations.at(-1).end, ')');
  }

  insert(at, text) {
    this.edits.push({ start: at, end: at, text });
  }

  /** Puts text around a node; what is put around it later is outside. */
  wrap({ start, end }, before, after) {
    this.edits.unshift({ start, end: start, text: before });
    this.edits.push({ start: end, end, text: after });
  }

  /** Replaces code with spaces, and a semicolon that keeps the lines before and after it apart. */
  blank(start, end) {
    const text = this.code.slice(start + 1, end).replace(/[^\r\n\u2028\u2029]/g, ' ');
    this.edits.push({ start, end, text: `;${text}` });
  }
}

/** Visits the nodes of the top level's function scope: its `await`s and `return`s, and the `var`s in its blocks. */
const visitors = {
  FunctionDeclaration() {},
  FunctionExpression() {},
  ArrowFunctionExpression() {},
  ClassBody(node, rewriter, visit) {
    for (const { computed, key } of node.body) if (computed) visit(key, rewriter);
  },
  AwaitExpression(node, rewriter, visit) {
    rewriter.becomeFunction(true);
    base.AwaitExpression(node, rewriter, visit);
  },
  ForStatement(node, rewriter, visit) {
    loop(node, node.init, rewriter, visit);
  },
  ForInStatement(node, rewriter, visit) {
    loop(node, node.left, rewriter, visit);
  },
  ForOfStatement(node, rewriter, visit) {
    if (node.await) rewriter.becomeFunction(true);
    loop(node, node.left, rewriter, visit);
  },
  ReturnStatement(node, rewriter, visit) {
    rewriter.becomeFunction(false);
    if (node.argument) rewriter.wrap(node.argument, '{ value: (', ') }');
    base.ReturnStatement(node, rewriter, visit);
  },
  VariableDeclaration(node, rewriter, visit) {
    if (node.kind === 'await using') rewriter.becomeFunction(true);
    if (node.kind === 'var') rewriter.hasVars = true;
    if (node.kind === 'var' && rewriter.persist) rewriter.variables(node, rewriter.vars, node.isLoopHead);
    base.VariableDeclaration(node, rewriter, visit);
  },
};

/** Visits each `this` that is the file's own. */
const thisVisitors = {
  FunctionDeclaration() {},
  FunctionExpression() {},
  ClassBody: visitors.ClassBody,
  ThisExpression({ start, end }, rewriter) {
    rewriter.edits.push({ start, end, text: rewriter.isModule ? '(void 0)' : 'exports' });
  },
};

/** Looks for code that may use the global object, whose members the variables of a file are not. */
const globalVisitors = {
  ClassBody() {},
  ThisExpression(node, rewriter) {
    rewriter.becomeFunction(false);
  },
  Identifier({ name }, rewriter) {
    if (name === 'globalThis' || name === 'global') rewriter.becomeFunction(false);
  },
};

function loop(node, head, rewriter, visit) {
  if (head) head.isLoopHead = true;
  base[node.type](node, rewriter, visit);
}

function isDeclaration(node) {
  return node.type === 'VariableDeclaration' || (/^(Function|Class)Declaration$/.test(node.type) && node.id);
}

/**
 * Whether a statement has no effect when it is reached, so that the value of the statement before it can be returned.
 */
function isInert(node) {
  switch (node.type) {
    case 'EmptyStatement':
    case 'FunctionDeclaration':
    case 'ImportDeclaration':
    case 'ExportAllDeclaration':
      return true;
    case 'ExportNamedDeclaration':
      return !node.declaration || isInert(node.declaration);
    case 'VariableDeclaration':
      return node.kind === 'var' && node.declarations.every(({ init }) => !init);
    default:
      return false;
  }
}

function boundNames(pattern) {
  switch (pattern?.type) {
    case 'Identifier':
      return [pattern.name];
    case 'ObjectPattern':
      return pattern.properties.flatMap((property) => boundNames(property.value ?? property.argument));
    case 'ArrayPattern':
      return pattern.elements.flatMap(boundNames);
    case 'AssignmentPattern':
      return boundNames(pattern.left);
    case 'RestElement':
      return boundNames(pattern.argument);
    default:
      return [];
  }
}

function declare(keyword, names) {
  return names.size ? `${keyword} ${[...names].join(', ')}; ` : '';
}

function attributes({ attributes = [] }) {
  if (!attributes.length) return '';
  const pairs = attributes.map(({ key, value }) => [key.name ?? key.value, value.value]);
  return `, { with: ${JSON.stringify(Object.fromEntries(pairs))} }`;
}

/**
 * Code that throws if an imported name is missing. The error has no stack, which would point into the rewritten import.
 */
function missing(name, module) {
  const message = `The requested module '${module}' does not provide an export named '${name}'`;
  const [text, stack] = [message, `SyntaxError: ${message}`].map((string) => JSON.stringify(string));
  return ` = (() => { throw Object.assign(new SyntaxError(${text}), { stack: ${stack} }) })()`;
}

/**
 * Maps a position (counted from 1) in the rewritten code to one in the code as written, or to null in the wrapper's
 * end.
 */
function locator(code, edits) {
  const lineCount = code.split(LINE_BREAK).length;
  const moving = edits
    .filter(({ start, end, text }) => text.length !== end - start)
    .map(({ start, end, text }) => {
      const before = code.slice(0, start).split(LINE_BREAK);
      return { line: before.length, column: before.at(-1).length + 1, grows: text.length - (end - start) };
    });
  return (line, column) => {
    if (line > lineCount) return null;
    let shift = 0;
    for (const edit of moving) {
      if (edit.line !== line || column <= edit.column + shift) continue;
      shift += Math.min(edit.grows, column - edit.column - shift);
    }
    return [line, column - shift];
  };
}
