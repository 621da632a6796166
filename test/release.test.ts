import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { appendFile, cp, mkdir, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { startProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { RECIPES } from './tools/recipes.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..');
const workflows = globSync('.github/workflows/*.yaml', { cwd: root });

describe('what builds and releases', () => {
  test('actionlint, shellcheck and hadolint have nothing to say', async () => {
    const [actionlint, shellcheck, hadolint] = await Promise.all([toolPath('actionlint'), toolPath('shellcheck'), toolPath('hadolint')]);
    await run(actionlint, [`-shellcheck=${shellcheck}`, ...workflows], { cwd: root });
    await run(shellcheck, [...globSync('.github/scripts/*.sh', { cwd: root }), '.ci/run'], { cwd: root });
    await run(hadolint, ['Dockerfile'], { cwd: root });
  });

  test('every action is pinned by its commit, with the version in a comment', () => {
    for (const file of workflows) {
      for (const [line] of readFileSync(join(root, file), 'utf8').matchAll(/^.*uses:.*$/gm)) {
        assert.match(line, /uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/, file);
      }
    }
  });

  test('the image has the mihomo that the tests run, pinned by wheel and by program', () => {
    const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8');
    const { distribution, version, sha256 } = RECIPES.mihomo;
    assert.ok(dockerfile.includes(`${distribution}==${version}`));
    for (const digest of sha256) assert.ok(dockerfile.includes(`wheel=${digest}`));
    assert.equal(dockerfile.match(/program=[0-9a-f]{64}/g)?.length, 2);
  });

  test('the modules that are compiled during the image build can be imported', async () => {
    const step = /^RUN (\["node",[^]*?\])$/m.exec(readFileSync(join(root, 'Dockerfile'), 'utf8'))?.[1] ?? '';
    const [, ...args] = JSON.parse(step.replaceAll('\\\n', '').replaceAll('/app/', `${root}/`)) as string[];
    const { stdout } = await run(process.execPath, args, { cwd: join(root, 'docs') });
    assert.match(stdout, /Usage: kube-registry/);
  });

  test('the image runs the Node that the tests run', () => {
    const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { devDependencies: Record<string, string> };
    assert.ok(readFileSync(join(root, 'Dockerfile'), 'utf8').includes(`node:${devDependencies['node']}-`));
  });

  test('the program reports the version of its chart', async () => {
    const { version, appVersion } = parse(readFileSync(join(root, 'chart/Chart.yaml'), 'utf8')) as Record<string, string>;
    assert.equal(appVersion, version);
    const program = await startProgram('--version', {});
    assert.equal(await program.exited, 0);
    assert.equal(program.output().trim(), version);
  });

  test('the object storage of the chart is the versitygw that the tests run', () => {
    const values = parse(readFileSync(join(root, 'chart/values.yaml'), 'utf8')) as { objectStorage: { image: { tag: string } } };
    assert.equal(values.objectStorage.image.tag, RECIPES.versitygw.version);
  });
});

describe('the Helm repository on GitHub Pages', () => {
  interface Pages {
    publish(version: string): Promise<string>;
    /** Returns the content of a file of the branch gh-pages. */
    show(file: string): Promise<string>;
    git(...args: string[]): Promise<string>;
    checkout: string;
  }

  async function startPages(directory: string): Promise<Pages> {
    const helm = await toolPath('helm');
    const [origin, checkout, packages] = ['origin', 'checkout', 'packages'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
    ];
    const env = {
      PATH: [dirname(helm), '/usr/local/bin', '/usr/bin', '/bin'].join(delimiter),
      HOME: directory,
      GIT_CONFIG_GLOBAL: join(directory, 'gitconfig'),
    };
    await writeFile(env.GIT_CONFIG_GLOBAL, '[user]\nname = release\nemail = release@example.com\n[init]\ndefaultBranch = main\n');
    const git = async (...args: string[]): Promise<string> => (await run('git', ['-C', checkout, ...args], { env })).stdout;
    await mkdir(checkout);
    await run('git', ['init', '--quiet', '--bare', origin], { env });
    await git('init', '--quiet');
    await git('remote', 'add', 'origin', origin);
    await writeFile(join(checkout, 'README.md'), 'a project\n');
    await git('add', '--all');
    await git('commit', '--quiet', '--message', 'first');
    return {
      checkout,
      git,
      show: async (file) => {
        await git('fetch', '--quiet', 'origin', 'gh-pages');
        return git('show', `FETCH_HEAD:${file}`);
      },
      async publish(version) {
        await run(helm, ['package', join(root, 'chart'), '--version', version, '--destination', packages], { env });
        const script = join(root, '.github/scripts/publish-chart.sh');
        const { stdout } = await run('bash', [script, join(packages, `kube-registry-${version}.tgz`), 'https://example.com/charts'], {
          env,
          cwd: checkout,
        });
        return stdout;
      },
    };
  }
  const versionsOf = (index: string): string[] =>
    (parse(index) as { entries: Record<string, { version: string }[]> }).entries['kube-registry']?.map(({ version }) => version) ?? [];

  test('the first version makes the branch, with the chart and its index and nothing else of the project', async () => {
    await using temporary = await temporaryDirectory();
    const pages = await startPages(temporary.path);
    assert.match(await pages.publish('1.0.0'), /is published/);
    assert.deepEqual(versionsOf(await pages.show('index.yaml')), ['1.0.0']);
    assert.match(await pages.show('index.yaml'), /https:\/\/example\.com\/charts\/kube-registry-1\.0\.0\.tgz/);
    assert.deepEqual((await pages.git('ls-tree', '--name-only', 'FETCH_HEAD')).trim().split('\n'), [
      '.nojekyll',
      'index.yaml',
      'kube-registry-1.0.0.tgz',
    ]);
    assert.equal((await pages.git('worktree', 'list')).trim().split('\n').length, 1);
  });

  test('later versions are published next to the earlier ones, also those of a former chart', async () => {
    await using temporary = await temporaryDirectory();
    const pages = await startPages(temporary.path);
    await pages.publish('0.2.0');
    await pages.publish('1.0.0');
    await pages.publish('1.0.1');
    assert.deepEqual(versionsOf(await pages.show('index.yaml')), ['1.0.1', '1.0.0', '0.2.0']);
    await pages.show('kube-registry-0.2.0.tgz');
  });

  test('a second run changes nothing, and a published package is never replaced', async () => {
    await using temporary = await temporaryDirectory();
    const pages = await startPages(temporary.path);
    await pages.publish('1.0.0');
    await pages.show('index.yaml');
    const before = await pages.git('rev-parse', 'FETCH_HEAD');
    assert.match(await pages.publish('1.0.0'), /is published already/);
    await pages.show('index.yaml');
    assert.equal(await pages.git('rev-parse', 'FETCH_HEAD'), before);
  });

  test('concurrent publishing loses nothing', async () => {
    await using temporary = await temporaryDirectory();
    const pages = await startPages(temporary.path);
    await pages.publish('1.0.0');
    // A hook of origin that accepts another version before this one, once.
    const other = join(temporary.path, 'other');
    await cp(pages.checkout, other, { recursive: true });
    const hook = join(temporary.path, 'origin/hooks/pre-receive');
    const once = join(temporary.path, 'once');
    const theirs = `cd ${other} && git fetch -q origin gh-pages && git checkout -q FETCH_HEAD && touch theirs && git add theirs && git commit -qm theirs && git push -q origin HEAD:gh-pages`;
    await writeFile(
      hook,
      `#!/bin/bash\n[ -e ${once} ] && exit 0\ntouch ${once}\nunset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n${theirs}\nexit 1\n`,
      { mode: 0o755 },
    );
    assert.match(await pages.publish('1.1.0'), /1\.1\.0\.tgz is published/);
    assert.deepEqual(versionsOf(await pages.show('index.yaml')), ['1.1.0', '1.0.0']);
    await pages.show('theirs');
  });

  test('if origin refuses, it fails with an error', async () => {
    await using temporary = await temporaryDirectory();
    const pages = await startPages(temporary.path);
    await appendFile(join(temporary.path, 'origin/hooks/pre-receive'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    await assert.rejects(pages.publish('1.0.0'), /could not be published/);
  });
});
