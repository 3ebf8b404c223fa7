// Writes language.json while the image is built: the command that starts the runner, and the installed version of Node.
import { writeFileSync } from 'node:fs';

const language = {
  name: 'javascript',
  // V8 may use all the memory of the container; the container's limit decides.
  command: ['/opt/node/bin/node', '--max-old-space-size-percentage=100', '/opt/oncebox/javascript/runner.mjs'],
  version: process.versions.node,
  packages: {},
  // The text of one logging call is one write.
  keep_writes_apart: true,
};
writeFileSync('/opt/oncebox/javascript/language.json', `${JSON.stringify(language)}\n`);
