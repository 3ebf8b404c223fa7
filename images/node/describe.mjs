// Writes language.json while the image is built: the command that starts the runner, and the installed version of Node.
import { writeFileSync } from 'node:fs';

const language = {
  name: 'javascript',
  command: [
    '/opt/node/bin/node',
    // V8 may use all the memory of the container; the container's limit decides.
    '--max-old-space-size-percentage=100',
    '--require=/opt/oncebox/javascript/child.cjs',
    '/opt/oncebox/javascript/runner.mjs',
  ],
  version: process.versions.node,
  packages: {},
  // The text of one logging call is one write.
  keep_writes_apart: true,
};
writeFileSync('/opt/oncebox/javascript/language.json', `${JSON.stringify(language)}\n`);
