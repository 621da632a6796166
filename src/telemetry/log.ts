import { pino, type DestinationStream, type Logger } from 'pino';
import { printable, printableLines } from '../io/printable.ts';
import { redactCapabilities } from '../oci/capability.ts';
import { OciError } from '../oci/error.ts';

export type Log = Logger;

export interface LogOptions {
  level: 'debug' | 'info' | 'warn' | 'error';
  /** Lines for a person instead of JSON. */
  readable: boolean;
}

/** JSON lines, or a readable form on a terminal. Query strings and passwords of URLs are never
 *  logged: presigned and subscription URLs carry secrets there. The ids of pull secrets, with which
 *  anybody may read private images, appear at level debug alone. */
export async function createLog(options: LogOptions, output: DestinationStream): Promise<Log> {
  const destination = options.readable ? await readable(output) : output;
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level) => ({ level }), ...(options.readable ? { log: escapeTexts } : {}) },
      serializers: { error: describeError, url: redactUrl },
      hooks: { streamWrite: (line) => (line.startsWith('{"level":"debug"') ? line : redactCapabilities(line)) },
    },
    destination,
  );
}

/** pino-pretty does not escape texts, and some of them come from outside. */
function escapeTexts(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, typeof value === 'string' ? printable(value) : value]));
}

async function readable(output: DestinationStream): Promise<DestinationStream> {
  const { PinoPretty } = await import('pino-pretty');
  return PinoPretty({ destination: output, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l', sync: true });
}

/** A URL without its user, password, query and fragment; a text that is no URL is returned
 *  unchanged. */
function redactUrl(url: unknown): string {
  if (!URL.canParse(String(url))) return String(url);
  const { protocol, host, pathname } = new URL(String(url));
  return `${protocol}//${host}${pathname}`;
}

/** An error and its causes as one line, with the code and the origin of an OciError. */
function describeError(error: unknown): Record<string, unknown> | string {
  if (!(error instanceof Error)) return String(error);
  const causes: string[] = [];
  for (let cause = error.cause; cause instanceof Error && causes.length < 5; cause = cause.cause)
    causes.push(redactText(cause.message || cause.name));
  return {
    message: printable(redactText(error.message)),
    ...(error instanceof OciError
      ? { code: error.code, ...(error.origin === undefined ? {} : { origin: error.origin }) }
      : { type: error.name, stack: printableLines(error.stack ?? '') }),
    ...(causes.length === 0 ? {} : { causes }),
  };
}

/** Text with the URLs in it redacted. */
function redactText(text: string): string {
  return text.replace(/\b[a-z][a-z0-9+]*:\/\/[^\s"'<>]+/gi, (url) => redactUrl(url));
}
