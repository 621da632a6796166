import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request, type Agent, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

export interface Ask {
  method?: 'GET' | 'HEAD';
  headers?: Record<string, string>;
  /** The possible bodies of a 200; the response must have one of them. */
  expected: readonly Buffer[];
  /** The expected range, for a 206; absent: no range was requested. (The whole body is a valid
   *  response to a range request, too: RFC 9110 section 14.2.) */
  part?: Buffer;
  /** Bytes a second that are read at most. */
  rate?: number;
  /** The client disconnects after this many bytes. */
  leaveAfter?: number;
}

export interface Answer {
  /** whole: the whole body has arrived; left: the client has disconnected; refused: an error
   *  status; cut: the connection ended early; hung: it took longer than any time limit of the
   *  registry allows. */
  how: 'whole' | 'left' | 'refused' | 'cut' | 'hung';
  /** 0 where there was none. */
  status: number;
  /** The received bytes are a prefix of one of the expected bodies, and complete if the response is
   *  complete. */
  right: boolean;
  /** Length of the body. */
  bytes: number;
}

const PATIENCE = 150_000;

/** Sends one request and compares every byte of the response. Never rejects: a failure is a
 *  result. */
export async function ask(agent: Agent, url: string, options: Ask): Promise<Answer> {
  const { method = 'GET', headers = {}, expected } = options;
  const outgoing = request(url, { agent, method, headers });
  const answer: Answer = { how: 'cut', status: 0, right: true, bytes: 0 };
  const late = setTimeout(() => {
    answer.how = 'hung';
    outgoing.destroy(new Error('it hangs'));
  }, PATIENCE);
  try {
    outgoing.end();
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    answer.status = response.statusCode ?? 0;
    if (answer.status >= 400) {
      response.resume();
      await once(response, 'close');
      answer.how = 'refused';
    } else if (method === 'HEAD') {
      response.resume();
      answer.right = describes(response, expected);
      answer.how = 'whole';
    } else {
      await readBody(response, options, answer);
    }
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error || error.message === 'it hangs')) throw error; // no error of a connection
  } finally {
    clearTimeout(late);
  }
  return answer;
}

async function readBody(response: IncomingMessage, asked: Ask, answer: Answer): Promise<void> {
  const { rate, leaveAfter = Infinity } = asked;
  const started = performance.now();
  let fitting = answer.status === 200 ? asked.expected : answer.status === 206 && asked.part !== undefined ? [asked.part] : [];
  for await (const chunk of response as AsyncIterable<Buffer>) {
    const at = answer.bytes;
    fitting = fitting.filter((body) => chunk.equals(body.subarray(at, at + chunk.length)));
    answer.bytes += chunk.length;
    answer.right = fitting.length > 0;
    if (answer.bytes >= leaveAfter) {
      answer.how = 'left';
      return; // which closes the connection
    }
    if (rate !== undefined) await delay(Math.max(0, (1000 * answer.bytes) / rate - (performance.now() - started)));
  }
  answer.right = fitting.some(({ length }) => length === answer.bytes);
  answer.how = 'whole';
}

/** Whether the headers, if present, have the size and the digest of one of them. */
function describes(response: IncomingMessage, expected: readonly Buffer[]): boolean {
  const { 'content-length': length, 'docker-content-digest': digest } = response.headers;
  return expected.some(
    (body) =>
      (length === undefined || Number(length) === body.length) &&
      (digest === undefined || digest === `sha256:${createHash('sha256').update(body).digest('hex')}`),
  );
}
