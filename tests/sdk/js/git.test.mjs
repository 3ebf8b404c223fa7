// A sandbox's `git`, which runs git's own commands in the sandbox. It pushes to a bare repository there.

import assert from 'node:assert/strict'
import { check, create, METHODS } from './sdk.mjs'

const GIT = Object.keys(METHODS).filter((name) => name.startsWith('git.'))

check('a repository is made, changed and shared', GIT, async (t) => {
  const sandbox = await create(t)
  const { git, files } = sandbox
  await git.configureUser('Ada', 'ada@example.org')
  assert.equal(await git.getConfig('user.name'), 'Ada')
  await git.init('/tmp/bare', { bare: true, initialBranch: 'main' })
  await git.init('work', { initialBranch: 'main' })
  await git.setConfig('pull.rebase', 'false', { scope: 'local', path: 'work' })
  await git.remoteAdd('work', 'origin', '/tmp/bare')
  assert.equal(await git.remoteGet('work', 'origin'), '/tmp/bare')

  await files.write('work/a.txt', 'one\n')
  assert.equal((await git.status('work')).hasUntracked, true)
  await git.add('work')
  await git.commit('work', `First, with "quotes" and 'é'`)
  assert.equal((await git.status('work')).isClean, true)
  await git.push('work', { remote: 'origin', branch: 'main' })

  await git.createBranch('work', 'side')
  await git.checkoutBranch('work', 'main')
  await git.deleteBranch('work', 'side')
  assert.deepEqual((await git.branches('work')).branches, ['main'])

  await files.write('work/a.txt', 'spoilt\n')
  await git.restore('work', { paths: ['a.txt'] })
  assert.equal(await files.read('work/a.txt'), 'one\n')
  await files.write('work/b.txt', 'new\n')
  await git.add('work', { files: ['b.txt'] })
  await git.reset('work')
  assert.equal((await git.status('work')).hasStaged, false)

  await git.clone('/tmp/bare', { path: 'copy' })
  await files.write('copy/c.txt', 'from the copy\n')
  await git.add('copy')
  await git.commit('copy', 'Second', { authorName: 'Grace', authorEmail: 'grace@example.org' })
  await git.push('copy')
  await git.pull('work', { remote: 'origin', branch: 'main' })
  assert.equal(await files.read('work/c.txt'), 'from the copy\n')
  await git.dangerouslyAuthenticate({ username: 'ada', password: 'secret', host: 'git.example.org' })
  assert.match(await files.read('.git-credentials'), /ada:secret@git\.example\.org/)
})
