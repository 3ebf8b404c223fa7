// Files of a sandbox: `files`, and links that need no SDK.

import assert from 'node:assert/strict'
import { after } from 'node:test'
import { check, create, discard, e2b, sleep, until } from './sdk.mjs'

const shared = await create(null, { timeoutMs: 300_000 })
after(() => discard(shared))

check('text and bytes are read back as they were written', ['files.write', 'files.read'], async () => {
  for (const text of ['', 'é 漢字 🎈\r\n', 'long '.repeat(200_000)]) {
    await shared.files.write('text.txt', text)
    assert.ok((await shared.files.read('text.txt')) === text)
  }
  const data = new Uint8Array(256_000).map((_, i) => i % 256)
  await shared.files.write('/tmp/new/data.bin', data.buffer)
  assert.deepEqual(await shared.files.read('/tmp/new/data.bin', { format: 'bytes' }), data)
  let size = 0
  for await (const piece of await shared.files.read('/tmp/new/data.bin', { format: 'stream' })) size += piece.length
  assert.equal(size, data.length)
})

check('code sees files', ['files.write', 'sandbox.run_code'], async () => {
  await shared.files.write('data.csv', 'a,b\n')
  assert.match((await shared.runCode("open('data.csv').read()")).text, /a,b/)
})

check('several files are written at once', ['files.write'], async () => {
  const written = await shared.files.write([
    { path: 'many/a.txt', data: 'A' },
    { path: 'many/b.txt', data: 'B' },
  ])
  assert.deepEqual(written.map((info) => info.path), ['/home/user/many/a.txt', '/home/user/many/b.txt'])
})

check('several files are written by their own method', ['files.write_files', 'files.read'], async () => {
  await shared.files.writeFiles([{ path: 'own.txt', data: 'O' }])
  assert.equal(await shared.files.read('own.txt'), 'O')
})

check('a directory is made and listed', ['files.make_dir', 'files.list'], async () => {
  assert.equal(await shared.files.makeDir('tree/one'), true)
  assert.equal(await shared.files.makeDir('tree/one'), false)
  await shared.files.write('tree/file.txt', 'x')
  const found = Object.fromEntries((await shared.files.list('tree')).map(({ name, type }) => [name, type]))
  assert.deepEqual(found, { one: 'dir', 'file.txt': 'file' })
})

check('a file is described, renamed and removed', ['files.get_info', 'files.exists', 'files.rename', 'files.remove'], async () => {
  await shared.files.write('old.txt', '12345')
  const info = await shared.files.getInfo('old.txt')
  assert.deepEqual([info.path, info.size, info.owner], ['/home/user/old.txt', 5, 'user'])
  await shared.files.rename('old.txt', 'new.txt')
  assert.deepEqual([await shared.files.exists('old.txt'), await shared.files.exists('new.txt')], [false, true])
  await shared.files.remove('new.txt')
  assert.equal(await shared.files.exists('new.txt'), false)
})

check('a missing file is not found', ['files.read', 'files.list'], async () => {
  await assert.rejects(shared.files.read('nothing'), e2b.NotFoundError)
  await assert.rejects(shared.files.list('nothing'), e2b.NotFoundError)
})

check('a directory is watched', ['files.watch_dir', 'watch.stop'], async () => {
  await shared.files.makeDir('watched')
  const seen = []
  const watch = await shared.files.watchDir('watched', ({ type, name }) => seen.push(`${type} ${name}`))
  await shared.files.write('watched/new.txt', 'x')
  await until(10, () => seen.includes('write new.txt'))
  // Each event arrives only once.
  assert.deepEqual(seen, ['create new.txt', 'chmod new.txt', 'write new.txt'])
  await watch.stop()
  await shared.files.write('watched/unseen.txt', 'x')
  await sleep(0.5)
  assert.equal(seen.length, 3)
})

check('a link leads to its file', ['sandbox.download_url', 'sandbox.upload_url'], async (t) => {
  const sandbox = await create(t)
  await sandbox.files.write('linked.txt', 'by link')
  assert.equal(await (await fetch(await sandbox.downloadUrl('linked.txt'))).text(), 'by link')
  assert.match(await sandbox.uploadUrl('up.txt'), /up\.txt/)
})

check(
  'a link needs no SDK',
  ['sandbox.download_url', 'sandbox.upload_url'],
  async (t) => {
    const sandbox = await create(t, { secure: true })
    await sandbox.files.write('linked.txt', 'by link')
    const url = await sandbox.downloadUrl('linked.txt', { user: 'user' })
    assert.equal(await (await fetch(url)).text(), 'by link')
    const refused = await fetch(url.replace('linked.txt', 'other.txt'))
    assert.deepEqual(await refused.json(), { code: 401, message: 'invalid signature' })
    const form = new FormData()
    form.append('file', new Blob(['uploaded']), 'up.txt')
    const sent = await fetch(await sandbox.uploadUrl('up.txt', { user: 'user' }), { method: 'POST', body: form })
    assert.equal(sent.status, 200)
    assert.equal(await sandbox.files.read('up.txt'), 'uploaded')
  },
  ['files.write', 'sandbox.create'],
)
