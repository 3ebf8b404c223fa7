// Turns TypeScript into JavaScript with swc: types are dropped, not checked.
import { SourceMap } from 'node:module';

import swc from '@swc/core';

const { Buffer, JSON, Map, SyntaxError } = globalThis;

export const extension = '.ts';

const options = {
  swcrc: false,
  configFile: false,
  isModule: true,
  sourceMaps: true,
  module: { type: 'es6' },
  jsc: {
    target: 'esnext',
    parser: { syntax: 'typescript', decorators: true },
    experimental: { keepImportAttributes: true },
    // An import that nothing uses yet may be used by the next execution.
    transform: { verbatimModuleSyntax: true, decoratorVersion: '2022-03' },
  },
};
/** With the older decorators, fields are assigned, as in the older JavaScript that they are from: a setter sees them. */
const legacyOptions = {
  ...options,
  jsc: {
    ...options.jsc,
    transform: { verbatimModuleSyntax: true, legacyDecorator: true, useDefineForClassFields: false },
  },
};

/**
 * Match code that can only mean TypeScript's older decorators: it names the type of their third parameter, decorates a
 * parameter, or has decorators that take a target and a key. All other code gets standard decorators, as with tsc.
 */
const LEGACY_DECORATORS = /\bPropertyDescriptor\b|[(,]\s*@\w/;
const LEGACY_PARAMETERS =
  /\(\s*\w+\s*:\s*[\w.]+\s*,\s*(?:propertyKey|propertyName|property|prop|key|name)\s*:\s*(?:string|symbol|PropertyKey)\b/;
const STANDARD_DECORATORS = /\bClass\w*Decorator\w*\b|\bDecoratorContext\b|\baddInitializer\b/;

/** The start of a function among swc's, which fails if a class is sealed by its decorators. */
const DEFINE_METADATA = 'function defineMetadata(Class, metadata) {';

/** Matches code that may have what `adapt` changes. */
const NEEDS_ADAPTING = /\bimport\b[^;'"]*=\s*require\b|\bexport\s*=|\busing\b/;

/**
 * Returns `{ code, map, locate, using }`. `map` is a source map, and `locate(line, column)` maps a position in the
 * JavaScript to one in the TypeScript, or to null.
 *
 * With `keepUsing`, top-level declarations with `using` become constants, and `using` maps their names to `using` or
 * `await using`. Otherwise swc turns them into a `try` statement around the rest of the file.
 */
export function transpile(typescript, filename, { keepUsing = true } = {}) {
  let output;
  const using = new Map();
  try {
    const needsAdapting = NEEDS_ADAPTING.test(typescript);
    output = swc.transformSync(needsAdapting ? adapt(typescript, keepUsing ? using : null) : typescript, {
      ...(hasLegacyDecorators(typescript) ? legacyOptions : options),
      filename,
    });
    const code = output.code.replace(DEFINE_METADATA, `${DEFINE_METADATA} if (!Object.isExtensible(Class)) return Class;`);
    return { code, map: output.map, locate, using };
  } catch (error) {
    throw syntaxError(error.message, filename);
  }

  function locate(line, column) {
    output.sourceMap ??= new SourceMap(JSON.parse(output.map));
    const { originalLine, originalColumn } = output.sourceMap.findEntry(line - 1, column - 1);
    return originalLine === undefined ? null : [originalLine + 1, originalColumn + 1]; // one of swc's own functions
  }
}

/**
 * Changes what swc does not transpile: `import x = require('y')` into `;var   x = require('y')`, which a later execution
 * may repeat, and `export = x` into `;module.exports = x`. If `using` is given, adds the names of top-level declarations
 * with `using` to it, and turns these into constants.
 */
function adapt(typescript, using) {
  const bytes = Buffer.from(typescript);
  const pieces = [];
  let position = 0;
  const replace = (start, end, keyword) => {
    // The places that swc reports are bytes, counted from 1.
    const replaced = bytes.toString('utf8', start - 1, end - 1);
    const blank = replaced.slice(keyword.length).replace(/[^\r\n]/g, ' ');
    const lines = replaced.slice(0, keyword.length).replace(/[^\r\n]/g, '');
    pieces.push(bytes.subarray(position, start - 1), Buffer.from(keyword + lines + blank));
    position = end - 1;
  };
  for (const node of swc.parseSync(typescript, options.jsc.parser).body) {
    const { start, end } = node.span;
    if (node.type === 'TsExportAssignment') {
      replace(start, node.expression.span.start, ';module.exports = ');
    } else if (node.type === 'TsImportEqualsDeclaration' && node.moduleRef.type === 'TsExternalModuleReference') {
      if (node.isTypeOnly) replace(start, end, ';');
      else replace(start, node.id.span.start, ';var');
    } else if (node.type === 'UsingDeclaration' && using) {
      for (const { id } of node.decls) using.set(id.value, node.isAwait ? 'await using' : 'using');
      replace(start, node.decls[0].span.start, 'const');
    }
  }
  return Buffer.concat([...pieces, bytes.subarray(position)]).toString();
}

function hasLegacyDecorators(typescript) {
  if (LEGACY_DECORATORS.test(typescript)) return true;
  return /(?:^|[\s;{}])@\w/.test(typescript) && LEGACY_PARAMETERS.test(typescript) && !STANDARD_DECORATORS.test(typescript);
}

/**
 * Turns `import x = require('y')` into `var    x = require('y')`, which a later execution may repeat, and `export = x` into
 * an assignment to `module.exports`.
 */
function withoutCommonjs(typescript) {
  const bytes = Buffer.from(typescript);
  const pieces = [];
  let position = 0;
  const replace = (start, end, text) => {
    // The places that swc reports are bytes, counted from 1.
    pieces.push(bytes.subarray(position, start - 1), Buffer.from(text));
    position = end - 1;
  };
  const spaces = (start, end) => bytes.toString('utf8', start - 1, end - 1).replace(/[^\r\n]/g, ' ');
  for (const { type, span, isTypeOnly, id, moduleRef, expression } of swc.parseSync(typescript, options.jsc.parser).body) {
    if (type === 'TsExportAssignment') {
      const lines = spaces(span.start, expression.span.start).replaceAll(' ', '');
      replace(span.start, expression.span.start, `;module.exports = ${lines}`);
    } else if (type === 'TsImportEqualsDeclaration' && moduleRef.type === 'TsExternalModuleReference') {
      const end = isTypeOnly ? span.end : id.span.start;
      replace(span.start, end, `;${isTypeOnly ? '' : 'var'}${spaces(span.start, end).slice(isTypeOnly ? 1 : 4)}`);
    }
  }
  return Buffer.concat([...pieces, bytes.subarray(position)]).toString();
}

/** swc's first error in V8's format: the line, and a caret below the position. */
function syntaxError(report, filename) {
  const message = /^\s*x (.*)$/m.exec(report)?.[1] ?? report;
  const error = new SyntaxError(message);
  // ` 3 | let x: number = ;` and below it `   :                 ^`
  const place = /^ *(\d+) \| (.*)\n +: ( *)(\^+|[-,|`])/m.exec(report);
  error.stack = place
    ? `${filename}:${place[1]}\n${place[2]}\n${place[3]}${place[4]}\n\nSyntaxError: ${message}`
    : `SyntaxError: ${message}`;
  return error;
}

// The first use of each transformation is slow.
transpile(
  'enum Warm { Up } namespace Space { export const x: number = 1 } class Point { constructor(public x = 1) {} }',
  'warm',
);
