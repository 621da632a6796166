import { describeConnectionError, type Transport, type TransportResponse } from '../http/transport.ts';
import type { Digest } from '../oci/digest.ts';
import { formatRange, parseContentRange, type ByteRange } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import { discard, startCall, withIdleTimeout, type Call } from '../upstream/call.ts';
import {
  AGENT_HEADER,
  formatOffer,
  formatReport,
  parsePlace,
  PLACE_HEADER,
  REPORT_HEADER,
  type AgentOffer,
  type Place,
  type Report,
} from './agreement.ts';
import type { Redirection } from './places.ts';

/** The registry's response to an agent that can read from other sources. */
export type Answer =
  /** `place` is undefined if the registry does not want the blob to be shared. */
  { blob: Blob; place: Place | undefined; redirection: undefined } | { blob: undefined; place: Place; redirection: Redirection };

export interface Question {
  repository: Repository;
  digest: Digest;
  range?: ByteRange | undefined;
  offer: AgentOffer;
}

export interface Questions {
  /** Requests a blob. Undefined: the response is an error, or comes from a registry that does not
   *  support these headers: send an ordinary request.
   *  @throws OciError UNAVAILABLE: the registry does not answer */
  ask(this: void, question: Question, signal: AbortSignal): Promise<Answer | undefined>;
  /** Sends a report to the registry, in the background. */
  report(this: void, report: Report): void;
}

/** Milliseconds. The registry itself resumes downloads from silent upstreams, which takes time. */
const HEADERS_TIMEOUT_MS = 25_000;
const IDLE_TIMEOUT_MS = 30_000;
const REPORT_TIMEOUT_MS = 5000;
const MAX_REPORTS_WAITING = 200;
const USER_AGENT = 'kube-registry';

export interface QuestionsOptions {
  /** URL of the registry. */
  url: string;
  /** Headers sent with every request. */
  headers: Record<string, string>;
  transport: Transport;
  log: Log;
}

export function createQuestions(options: QuestionsOptions): Questions {
  const { url, headers: own, transport, log } = options;
  const { origin, host, pathname } = new URL(`${url}/v2/`);
  let reporting = Promise.resolve();
  let reportsWaiting = 0;

  async function sendReport(report: Report): Promise<void> {
    try {
      const headers = { ...own, 'user-agent': USER_AGENT, [REPORT_HEADER]: formatReport(report) };
      const signal = AbortSignal.timeout(REPORT_TIMEOUT_MS);
      const { abandon } = await transport.request({ origin, path: pathname, method: 'GET', headers, signal });
      abandon('short');
    } catch (error) {
      log.debug({ event: 'report-not-sent', digest: report.digest, error }, 'could not report to the registry how a blob was read');
    } finally {
      reportsWaiting--;
    }
  }

  return {
    async ask(question, signal) {
      const call = startCall({ signal, deadline: AbortSignal.timeout(HEADERS_TIMEOUT_MS) }, host);
      let response: TransportResponse;
      try {
        response = await send(options, question, call);
      } catch (error) {
        call.end();
        throw error;
      } finally {
        call.headersCame();
      }
      const place = parsePlace(response.headers[PLACE_HEADER]);
      const redirection = response.statusCode === 307 ? redirectionOf(response, place) : undefined;
      if (redirection !== undefined) {
        call.end();
        discard(response);
        return { blob: undefined, place: redirection.place, redirection };
      }
      const part = partOf(response, question.range);
      if (part === undefined) {
        call.end();
        discard(response);
        return undefined;
      }
      const body = withIdleTimeout(response, call, { idleTimeoutMs: IDLE_TIMEOUT_MS, host });
      return { blob: { digest: question.digest, ...part, body }, place, redirection: undefined };
    },

    report(report) {
      if (reportsWaiting >= MAX_REPORTS_WAITING) return;
      reportsWaiting++;
      reporting = reporting.then(() => sendReport(report));
    },
  };
}

function redirectionOf({ headers: { location } }: TransportResponse, place: Place | undefined): Redirection | undefined {
  const url = typeof location === 'string' ? URL.parse(location) : null;
  const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
  return place === undefined || place.kind === 'registry' || url === null || !isHttp ? undefined : { url, place };
}

/** Undefined: the response is not the blob. */
function partOf({ statusCode, headers }: TransportResponse, range: ByteRange | undefined): Pick<Blob, 'size' | 'range'> | undefined {
  if (statusCode === 200) {
    const length = Number(headers['content-length'] ?? Number.NaN);
    return { size: Number.isSafeInteger(length) ? length : undefined, range: undefined };
  }
  const part = statusCode === 206 ? parseContentRange(String(headers['content-range'] ?? '')) : undefined;
  if (part === undefined || range === undefined || part.start !== range.start) return undefined;
  return { size: part.size, range: { start: part.start, end: part.end } };
}

async function send(
  { url, headers: own, transport }: QuestionsOptions,
  { repository, digest, range, offer }: Question,
  call: Call,
): Promise<TransportResponse> {
  const { origin, pathname } = new URL(`${url}/v2/`);
  const headers = {
    ...own,
    'user-agent': USER_AGENT,
    'accept-encoding': 'identity',
    [AGENT_HEADER]: formatOffer(offer),
    ...(range === undefined ? {} : { range: formatRange(range) }),
  };
  try {
    const path = `${pathname}${repository}/blobs/${digest}`;
    return await transport.request({ origin, path, method: 'GET', headers, signal: call.signal });
  } catch (error) {
    call.signal.throwIfAborted();
    throw describeConnectionError(error, transport, new URL(url));
  }
}
