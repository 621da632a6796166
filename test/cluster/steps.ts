import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { RELEASE, type World } from './world.ts';

/** Tests that depend on each other: after a failure, the cluster is not in the state that the next
 *  test expects, so that test fails at once with the first error. The state of the cluster is
 *  written to stderr. */
export function createSteps(world: () => World): (name: string, body: (t: TestContext) => Promise<void>) => void {
  let failure: string | undefined;
  return (name, body) => {
    void test(name, async (t) => {
      if (failure !== undefined) assert.fail(failure);
      failure = `not tried, since the test "${name}" was interrupted`;
      try {
        await body(t);
      } catch (error) {
        failure = `not tried, since the test "${name}" failed: ${(error as Error).message}`;
        process.stderr.write(await describe(world()));
        throw error;
      }
      failure = undefined;
    });
  };
}

async function describe({ kubectl }: World): Promise<string> {
  const logsIn = (namespace: string): string[] => [
    'logs',
    '-n',
    namespace,
    '--selector=app.kubernetes.io/part-of=kube-registry',
    '--all-containers',
    '--prefix',
    '--tail=15',
  ];
  const everywhere = ['-A', '--sort-by=.lastTimestamp'];
  const questions = [['get', 'pods', '-A', '-o', 'wide'], ['get', 'events', ...everywhere], ...['images', RELEASE].map(logsIn)];
  const answers = questions.map((question) => kubectl(question).catch((error: Error) => error.message));
  return (await Promise.all(answers)).map((answer) => answer.split('\n').slice(-60).join('\n')).join('\n');
}
