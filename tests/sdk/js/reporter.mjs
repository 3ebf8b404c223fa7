// Prints each test, and the result line that `scripts/test` adds up.

import { writeFileSync } from 'node:fs'

const about = (name) => {
  const found = name.match(/^(left out: )?(.*) (\[.*\])$/)
  return found ? { isLeftOut: !!found[1], title: found[2], covers: JSON.parse(found[3]) } : { title: name, covers: [] }
}

export default async function* reporter(events) {
  const counts = { passed: 0, failed: 0, leftOut: 0 }
  const tests = []
  let setup = {}
  for await (const { type, data } of events) {
    if (type === 'test:stdout' || type === 'test:stderr') {
      const line = data.message.match(/^sdk (\{.*\})$/m)
      if (line) setup = JSON.parse(line[1])
      else yield data.message
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const { isLeftOut, title, covers } = about(data.name)
    const isFile = covers.length === 0 && data.name.endsWith('.mjs')
    if (type === 'test:fail') {
      // A file counts as failed if one of its tests failed, which is counted already, or if the file itself crashed.
      const cause = data.details.error?.cause ?? data.details.error
      if (isFile && data.details.error?.failureType === 'subtestsFailed') continue
      counts.failed += 1
      yield `FAILED ${title}\n${String(cause?.stack ?? cause)}\n`
    } else if (isFile) {
      continue
    } else if (data.skip || data.todo) {
      counts.failed += 1
      yield `FAILED ${title}: a test that skips itself\n`
    } else {
      counts[isLeftOut ? 'leftOut' : 'passed'] += 1
      yield `${isLeftOut ? 'left out' : 'ok'} ${title} (${Math.round(data.details.duration_ms)} ms)\n`
    }
    if (!isLeftOut) tests.push({ name: title, works: type === 'test:pass', covers, face: 'async' })
  }
  const word = counts.failed === 0 && counts.passed > 0 ? 'ok' : 'FAILED'
  yield `test result: ${word}. ${counts.passed} passed; ${counts.failed} failed; ${counts.leftOut} left out\n`
  if (process.env.SDK_REPORT) writeFileSync(process.env.SDK_REPORT, JSON.stringify({ sdk: 'js', ...setup, tests }))
}
