import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface RawAnswer {
  /** All that came, byte for byte (latin1). */
  text: string;
  /** Milliseconds until the connection ended. */
  took: number;
}

export interface RawOptions {
  /** Close the sending half after the bytes. */
  half?: boolean;
  /** The timeout in milliseconds; then the bytes received so far are returned. */
  patience?: number;
}

/** Sends bytes unchanged and reads until the other side ends the connection. */
export async function talk(
  port: number,
  bytes: string | Uint8Array,
  { half = false, patience = 20_000 }: RawOptions = {},
): Promise<RawAnswer> {
  const started = performance.now();
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk) => (text += chunk.toString('latin1')));
  socket.on('error', () => undefined); // a reset is an end too
  const impatience = setTimeout(() => socket.destroy(), patience);
  if (bytes.length > 0) socket.write(bytes);
  if (half) socket.end();
  await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  clearTimeout(impatience);
  return { text, took: performance.now() - started };
}

/** A connection on which something was sent, and from which nothing is read until someone resumes
 *  it. */
export async function openSilently(port: number, bytes: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.pause();
  socket.write(bytes);
  return socket;
}

/** The statuses of the answers in a text. */
export function statuses(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}
