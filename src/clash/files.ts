import { setTimeout as delay } from 'node:timers/promises';
import { createSecret } from '../config/secret.ts';
import type { ClashConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { ClashError } from './subscription/document.ts';
import type { Fields } from '../io/untrusted.ts';
import type { User } from './config/locked.ts';
import { fingerprint } from './subscription/fingerprint.ts';
import type { Offer } from './mihomo/offers.ts';
import type { Redactor } from './subscription/redact.ts';
import type { Inputs } from './config/render.ts';
import { parseYaml } from './subscription/yaml/parse-yaml.ts';

/** The files that the configuration names, and that may change while the program runs. */
export interface Files {
  users(): Promise<User[]>;
  /** Mode custom: the user's own config. */
  custom(): Promise<Fields | undefined>;
}

const POLL_INTERVAL_MS = 2000;

/** @throws ClashError: a file cannot be read, or is not a mihomo config */
export function openFiles(own: ClashConfig, redactor: Redactor): Files {
  const secrets = own.users.map(({ username, password, passwordFile }) => ({
    username,
    password: createSecret({ value: password, file: passwordFile }),
  }));
  const read = own.mode === 'custom' ? createSecret({ file: own.configFile }) : undefined;
  let known: { version: string; document: Fields } | undefined;

  return {
    async users() {
      const users: User[] = [];
      for (const { username, password } of secrets) {
        const user = { username, password: await password().catch((error: unknown) => unreadable('a passwordFile of clash.users', error)) };
        redactor.add(user.password);
        users.push(user);
      }
      return users;
    },

    async custom() {
      if (read === undefined) return undefined;
      const text = await read().catch((error: unknown) => unreadable('clash.configFile', error));
      const version = fingerprint(text);
      if (known?.version !== version) known = { version, document: await parseCustom(text) };
      redactor.addNodes(known.document['proxies']);
      return known.document;
    },
  };
}

async function parseCustom(text: string): Promise<Fields> {
  const { document } = await parseYaml(text).catch((error: Error) => {
    throw new ClashError(`clash.configFile: ${error.message}`);
  });
  if (document === undefined)
    throw new ClashError('clash.configFile: found no mihomo config; accepted: YAML with keys such as proxies and rules');
  return document;
}

function unreadable(what: string, error: unknown): never {
  throw new ClashError(`${what} cannot be read (${(error as NodeJS.ErrnoException).code})`);
}

export interface FollowFilesOptions {
  files: Files;
  /** The content in use at the start. */
  inputs: Pick<Inputs, 'users' | 'custom'>;
  offer: Offer;
  log: Log;
  signal: AbortSignal;
}

/** Offers each change, until `signal` aborts. @returns a function that returns the current problem
 *  of a file */
export function followFiles({ files, inputs, offer, log, signal }: FollowFilesOptions): () => string | undefined {
  let { users, custom } = inputs;
  let problem: string | undefined;
  const rest = { applied: () => Promise.resolve(), refused: () => undefined };

  async function offerChanges(): Promise<void> {
    const now = { users: await files.users(), custom: await files.custom() };
    if (JSON.stringify(now.users) !== JSON.stringify(users)) {
      users = now.users;
      await offer({ source: 'clash.users', change: (inputs) => ({ ...inputs, users: now.users }), ...rest });
    }
    if (now.custom !== custom) {
      custom = now.custom;
      await offer({ source: 'clash.configFile', change: (inputs) => ({ ...inputs, custom: now.custom, banned: new Set() }), ...rest });
    }
  }

  async function poll(): Promise<void> {
    while (!signal.aborted) {
      await delay(POLL_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => undefined); // stopped
      try {
        await offerChanges();
        problem = undefined;
      } catch (error) {
        const { message } = error as Error;
        if (message !== problem) log.error({ event: 'clash-file-unusable' }, message);
        problem = message;
      }
    }
  }
  void poll();
  return () => problem;
}
