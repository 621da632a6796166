import type { AgentOptions } from 'node:http';
import type { Log } from '../../telemetry/log.ts';
import { openPlain } from './open.ts';
import { openRawSockets, type OpenSocket, type RawSockets } from './raw-socket.ts';
import { rawSocketsWork } from './self-check.ts';

/** `openRawSockets`, whose `takeOver` leaves all bodies to Node's parser unless the self-check has
 *  passed in this process. */
export function createRawSockets(options: AgentOptions, open: OpenSocket = openPlain): RawSockets {
  const { agent, takeOver } = openRawSockets(options, open);
  let working = false;
  void rawSocketsWork().then((works) => (working = works));
  return { agent, takeOver: (response, length) => (working ? takeOver(response, length) : undefined) };
}

/** Reports a failed self-check. */
export async function reportRawSockets(log: Log): Promise<void> {
  if (await rawSocketsWork()) return;
  log.warn(
    { event: 'raw-sockets-unavailable' },
    'this version of Node does not allow long bodies to bypass the HTTP parser; they take more CPU',
  );
}
