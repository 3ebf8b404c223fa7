// Writes language.json while the image is built: the JavaScript runner with the transpiler in front of it.
import { readFileSync, writeFileSync } from 'node:fs';

import swc from '@swc/core';

const { command, version } = JSON.parse(readFileSync('/opt/oncebox/javascript/language.json', 'utf8'));
const language = {
  name: 'typescript',
  command: [
    ...command.map((word) => word.replace('javascript/child.cjs', 'typescript/child.cjs')),
    '/opt/oncebox/typescript/transpile.mjs',
  ],
  version: `swc ${swc.version}, node ${version}`,
  packages: {},
  keep_writes_apart: true,
};
writeFileSync('/opt/oncebox/typescript/language.json', `${JSON.stringify(language)}\n`);
