// Makes features of modules work in a script: top-level `await`, `import` and `export` declarations, `import.meta`.
//
// As in Node's REPL, such code becomes the body of an async function, and its top-level declarations are moved out of
// that function, so that they persist. Every edit keeps the line structure, and `locate` undoes the few edits that move
// columns, so that stack traces refer to the code as written.
import { parse } from './node_modules/acorn/dist/acorn.mjs';
import { base, full, recursive } from './node_modules/acorn-walk/dist/walk.mjs';

const { JSON } = globalThis;

const LINE_BREAK = /\r\n?|[\n\u2028\u2029]/;

const options = {
  ecmaVersion: 'latest',
  allowAwaitOutsideFunction: true,
  allowImportExportEverywhere: true,
  allowHashBang: true,
  locations: true,
};

/**
 * Returns `{ code, locate }` for code that needs module features, and null for a plain script. Throws acorn's
 * SyntaxError.
 *
 * `meta` is the value of `import.meta`. With `strictImports`, importing a name that a module does not export is an
 * error, as in JavaScript; in TypeScript such a name may be a type.
 */
export function rewrite(code, { meta, strictImports }) {
  const program = parse(code, options);
  const rewriter = new Rewriter(code, meta, strictImports);
  rewriter.program(program);
  return rewriter.needed ? rewriter.result() : null;
}

class Rewriter {
  needed = false;
  edits = [];
  /** Names to declare outside of the function. Imports become `var`, because a later execution may repeat them. */
  lets = new Set();
  vars = new Set();
  /** Statements to run before everything else in the function. */
  prologue = [];

  constructor(code, meta, strictImports) {
    this.code = code;
    this.meta = meta;
    this.strictImports = strictImports;
  }

  program(program) {
    if (this.code.startsWith('#!')) this.edits.push({ start: 0, end: 2, text: '//' });
    full(program, (node) => {
      if (node.type === 'MetaProperty' && node.meta.name === 'import') this.importMeta(node);
    });
    for (const node of program.body) this.statement(node);
    const last = program.body.findLast((node) => !isInert(node));
    const value = last?.type === 'ExportDefaultDeclaration' ? last.declaration : last?.expression;
    if (value && (last.type === 'ExpressionStatement' || !isDeclaration(value))) {
      // In an object, because the async function would await a value that has a method `then`.
      this.insert(value.start, 'return { value: (');
      this.insert(value.end, ') }');
    }
  }

  result() {
    const declarations = [declare('let', this.lets), declare('var', this.vars)].join('');
    this.edits.unshift({ start: 0, end: 0, text: `${declarations}(async () => { ${this.prologue.join(' ')} ` });
    // At the same position, an insertion comes before a replacement.
    const edits = this.edits.sort((a, b) => a.start - b.start || (a.end > a.start) - (b.end > b.start));
    let output = '';
    let position = 0;
    for (const { start, end, text } of edits) {
      output += this.code.slice(position, start) + text;
      position = end;
    }
    return { code: `${output}${this.code.slice(position)}\n})()`, locate: locator(this.code, edits) };
  }

  /** Rewrites a top-level statement: every declaration there persists. */
  statement(node) {
    switch (node.type) {
      case 'ImportDeclaration':
        return this.importDeclaration(node);
      case 'ExportAllDeclaration':
      case 'ExportNamedDeclaration':
      case 'ExportDefaultDeclaration':
        return this.exportDeclaration(node);
      case 'FunctionDeclaration':
        this.vars.add(node.id.name);
        this.prologue.push(`globalThis.${node.id.name} = ${node.id.name};`);
        return;
      case 'ClassDeclaration':
        this.lets.add(node.id.name);
        this.insert(node.start, `${node.id.name} = `);
        this.insert(node.end, ';');
        break;
      case 'VariableDeclaration':
        if (node.kind === 'let' || node.kind === 'const') this.variables(node, this.lets);
        break;
    }
    recursive(node, this, visitors);
  }

  importDeclaration(node) {
    this.needed = true;
    this.blank(node.start, node.end);
    let module = `await import(${node.source.raw}${attributes(node)})`;
    const names = [];
    for (const { type, local, imported } of node.specifiers) {
      this.vars.add(local.name);
      if (type === 'ImportNamespaceSpecifier') {
        module = `(${local.name} = ${module})`;
        continue;
      }
      const name = type === 'ImportDefaultSpecifier' ? 'default' : (imported.name ?? imported.value);
      names.push(`${JSON.stringify(name)}: ${local.name}${this.strictImports ? missing(name, node.source.value) : ''}`);
    }
    this.prologue.push(names.length ? `({ ${names.join(', ')} } = ${module});` : `${module};`);
  }

  /** Rewrites an export as a plain declaration, because nothing can import from an execution. */
  exportDeclaration(node) {
    this.needed = true;
    if (node.source) this.prologue.push(`await import(${node.source.raw}${attributes(node)});`);
    if (!node.declaration) return this.blank(node.start, node.end);
    this.blank(node.start, node.declaration.start);
    if (isDeclaration(node.declaration)) return this.statement(node.declaration);
    recursive(node.declaration, this, visitors);
  }

  importMeta(node) {
    this.needed = true;
    this.edits.push({ start: node.start, end: node.end, text: `(${JSON.stringify(this.meta)})` });
  }

  /**
   * Turns a declaration into assignments of the same width: `const x = 1` into `!   (x = 1)`. The operator `!` keeps
   * the assignment from continuing a line before it that has no semicolon.
   */
  variables(node, hoisted, isLoopHead = false) {
    for (const { id } of node.declarations) for (const name of boundNames(id)) hoisted.add(name);
    const { start, kind } = node;
    if (isLoopHead) return this.blank(start, start + kind.length);
    this.edits.push({ start, end: start + kind.length, text: '!('.padStart(kind.length).replace(/^( +)!/, '!$1') });
    for (const { id, init } of node.declarations) {
      if (!init && kind === 'let') this.insert(id.end, ' = undefined');
    }
    this.insert(node.declarations.at(-1).end, ')');
  }

  insert(at, text) {
    this.edits.push({ start: at, end: at, text });
  }

  blank(start, end) {
    this.edits.push({ start, end, text: this.code.slice(start, end).replace(/[^\r\n\u2028\u2029]/g, ' ') });
  }
}

/** Visits the nodes of the top level's function scope: its `await`s, and the `var`s in its blocks. */
const visitors = {
  FunctionDeclaration() {},
  FunctionExpression() {},
  ArrowFunctionExpression() {},
  ClassBody(node, rewriter, visit) {
    for (const { computed, key } of node.body) if (computed) visit(key, rewriter);
  },
  AwaitExpression(node, rewriter, visit) {
    rewriter.needed = true;
    base.AwaitExpression(node, rewriter, visit);
  },
  ForStatement(node, rewriter, visit) {
    loop(node, node.init, rewriter, visit);
  },
  ForInStatement(node, rewriter, visit) {
    loop(node, node.left, rewriter, visit);
  },
  ForOfStatement(node, rewriter, visit) {
    if (node.await) rewriter.needed = true;
    loop(node, node.left, rewriter, visit);
  },
  VariableDeclaration(node, rewriter, visit) {
    if (node.kind === 'await using') rewriter.needed = true;
    if (node.kind === 'var') rewriter.variables(node, rewriter.vars, node.isLoopHead);
    base.VariableDeclaration(node, rewriter, visit);
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
