// Turns TypeScript into JavaScript with swc: types are dropped, not checked.
import { SourceMap } from 'node:module';

import swc from '@swc/core';

const { JSON, SyntaxError } = globalThis;

const options = {
  swcrc: false,
  configFile: false,
  isModule: true,
  sourceMaps: true,
  module: { type: 'es6' },
  jsc: {
    target: 'esnext',
    parser: { syntax: 'typescript', decorators: true },
    // An import that nothing uses yet may be used by the next execution.
    transform: { verbatimModuleSyntax: true, decoratorVersion: '2022-03' },
  },
};
const legacyOptions = {
  ...options,
  jsc: { ...options.jsc, transform: { verbatimModuleSyntax: true, legacyDecorator: true } },
};

/**
 * Matches code that can only mean TypeScript's older decorators: it names the type of their third parameter, or
 * decorates a parameter. All other code gets standard decorators, as with tsc.
 */
const LEGACY_DECORATORS = /\bPropertyDescriptor\b|[(,]\s*@\w/;

/** Returns `{ code, locate }`; `locate(line, column)` maps a position in the JavaScript to one in the TypeScript. */
export function transpile(typescript, filename) {
  let output;
  try {
    const { code } = (output = swc.transformSync(typescript, {
      ...(LEGACY_DECORATORS.test(typescript) ? legacyOptions : options),
      filename,
    }));
    return { code, locate };
  } catch (error) {
    throw syntaxError(error.message, filename);
  }

  function locate(line, column) {
    output.sourceMap ??= new SourceMap(JSON.parse(output.map));
    const { originalLine, originalColumn } = output.sourceMap.findEntry(line - 1, column - 1);
    return originalLine === undefined ? [line, column] : [originalLine + 1, originalColumn + 1];
  }
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
