import { access, constants, readFile } from 'node:fs/promises';
import { parse, YAMLParseError } from 'yaml';
import type { z } from 'zod';
import { configSchema, type Config } from './schema.ts';

/** Its message lists the problems of the configuration, one line per key, and contains no
 *  secrets. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export interface ConfigSource {
  /** A YAML file; absent or empty: the defaults. */
  file?: string | undefined;
  /** `key.path=value` (the value as YAML), which overrides the file. */
  set?: readonly string[];
}

/** Reads and checks the configuration. @throws ConfigError */
export async function loadConfig(source: ConfigSource): Promise<Config> {
  const document = source.file === undefined || source.file === '' ? {} : await readDocument(source.file);
  for (const assignment of source.set ?? []) assign(document, assignment);
  return parseConfig(document);
}

/** @throws ConfigError */
export function parseConfig(document: unknown): Config {
  const result = configSchema.safeParse(withoutEmpty(document, configSchema));
  if (result.success) return result.data;
  throw new ConfigError(result.error.issues.flatMap((issue) => describeIssue(issue, document)).join('\n'));
}

/** Keys whose values are paths of files to read. */
const FILE_KEY = /File$|^(?:ca|htpasswd)$/;

/** Checks that every file named in `section`, the part of the configuration at `path`, can be read,
 *  so that a wrong path is reported at start and not by the first pull that needs the file. @throws
 *  ConfigError */
export async function requireFiles(section: unknown, path: string): Promise<void> {
  if (typeof section !== 'object' || section === null) return;
  for (const [key, value] of Object.entries(section)) {
    if (typeof value !== 'string' || !FILE_KEY.test(key)) {
      await requireFiles(value, `${path}.${key}`);
      continue;
    }
    await access(value, constants.R_OK).catch((cause: NodeJS.ErrnoException) => {
      throw new ConfigError(
        `${path}.${key}: found ${value}, which cannot be read (${cause.code}); accepted: a file that this user can read`,
      );
    });
  }
}

async function readDocument(file: string): Promise<Record<string, unknown>> {
  let content: string;
  try {
    content = await readFile(file, 'utf8');
  } catch (cause) {
    throw new ConfigError(`the config file ${file} cannot be read: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  }
  return parseYaml(content, file);
}

function parseYaml(content: string, origin: string): Record<string, unknown> {
  let document: unknown;
  try {
    document = parse(content, { merge: true }) ?? {};
  } catch (cause) {
    // The parser's own message quotes the line, and the line may hold a secret.
    const at = cause instanceof YAMLParseError ? `, line ${cause.linePos?.[0].line}: ${cause.code}` : '';
    throw new ConfigError(`${origin} is not YAML${at}`);
  }
  if (!isRecord(document)) throw new ConfigError(`${origin}: expected keys such as registry, agent, webhook and clash`);
  return document;
}

function assign(document: Record<string, unknown>, assignment: string): void {
  const at = assignment.indexOf('=');
  if (at < 1) throw new ConfigError(`--set ${JSON.stringify(assignment)}: expected key.path=value`);
  const key = assignment.slice(0, at);
  const path = key.split('.');
  if (path.includes('__proto__')) throw new ConfigError(`${key}: unknown key`);
  const last = path.pop() ?? '';
  let target = document;
  for (const part of path) {
    const next = Object.hasOwn(target, part) ? target[part] : undefined;
    target = isRecord(next) ? next : (target[part] = {});
  }
  target[last] = parseValue(assignment.slice(at + 1), key);
}

/** `[::]:5000`, which YAML would parse as a list. */
const BRACKETED_ADDRESS = /^\[[0-9a-fA-F:.]+\]:\d+$/;

function parseValue(text: string, key: string): unknown {
  if (BRACKETED_ADDRESS.test(text)) return text;
  try {
    return parse(text) as unknown;
  } catch (cause) {
    if (!(cause instanceof YAMLParseError)) throw cause;
    throw new ConfigError(`${key}: the value of --set is not YAML (${cause.code}); quote it`); // the value may be a secret, so it is not shown
  }
}

/** Returns `given` without empty lists and sections, such as sections whose keys are all commented
 *  out: they count as absent. An empty section whose mere presence enables a feature is ambiguous,
 *  so it is kept and then rejected. */
function withoutEmpty(given: unknown, schema: unknown): unknown {
  if (!isRecord(given)) return given;
  const inner = unwrap(schema);
  const entries = Object.entries(given).filter(([key, value]) => value !== null || !mayBeEmpty(child(inner, key)));
  return Object.fromEntries(entries.map(([key, value]) => [key, withoutEmpty(value, child(inner, key))]));
}

function mayBeEmpty(schema: unknown): boolean {
  const type = String(definitionOf(unwrap(schema))?.['type']);
  return type === 'array' || (['object', 'record'].includes(type) && definitionOf(schema)?.['type'] === 'prefault');
}

type Issue = z.core.$ZodIssue;

function describeIssue(issue: Issue, document: unknown): string[] {
  const path = issue.path.map(String);
  const input = path.reduce<unknown>((at, key) => (at as Record<string, unknown> | null | undefined)?.[key], document);
  const at = path.join('.') || 'the config';
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => `${[...path, key].join('.')}: unknown key; accepted here: ${acceptedKeys(path).join(', ')}`);
    case 'invalid_key':
      return [`${at}: ${issue.issues[0]?.message ?? issue.message}`];
    case 'invalid_value':
      return [`${at}: found ${found(path, input)}; accepted: ${issue.values.map(String).join(', ')}`];
    case 'invalid_type':
      return [`${at}: found ${found(path, input)}; accepted: ${accepted(issue.message, issue.expected, acceptedKeys(path))}`];
    default:
      return [`${at}: found ${found(path, input)}; accepted: ${issue.message}`];
  }
}

function accepted(message: string, expected: string, keys: string[]): string {
  if (!message.startsWith('Invalid input')) return message;
  return keys.length > 0 ? `an object with keys such as ${keys.join(', ')}` : (PLAIN[expected] ?? `a value of type ${expected}`);
}

const PLAIN: Record<string, string> = { array: 'a list', boolean: 'true or false', string: 'a text' };

/** Keys that may contain a secret, themselves or below them, such as `agent.registry`. */
const SECRET_KEY = /^(?:url|proxy|endpoint|password|username|accessKeyId|secretAccessKey|headers|users|subscriptions|credentials)$/;

/** Describes the given value; only its type, where the value may be a secret. */
function found(path: string[], input: unknown): string {
  if (input === undefined) return 'nothing';
  if (input === null) return 'null';
  if (Array.isArray(input)) return 'a list';
  if (typeof input === 'object') return `the keys ${Object.keys(input).join(', ') || '(none)'}`;
  if (path.some((key) => SECRET_KEY.test(key)) || path.join('.') === 'agent.registry') return `a ${typeof input} (not shown)`;
  return JSON.stringify(input).slice(0, 100);
}

/** The keys that the schema has at `path`. */
function acceptedKeys(path: string[]): string[] {
  let schema: unknown = configSchema;
  for (const key of path) schema = child(unwrap(schema), key);
  const shape = shapeOf(unwrap(schema));
  return shape === undefined ? [] : Object.keys(shape);
}

function child(schema: unknown, key: string): unknown {
  const shape = shapeOf(schema);
  if (shape !== undefined) return shape[key];
  const definition = definitionOf(schema);
  return definition?.['valueType'] ?? definition?.['element'];
}

function shapeOf(schema: unknown): Record<string, unknown> | undefined {
  return definitionOf(schema)?.['shape'] as Record<string, unknown> | undefined;
}

function definitionOf(schema: unknown): Record<string, unknown> | undefined {
  return isRecord(schema) && isRecord(schema['def']) ? schema['def'] : undefined;
}

/** The schema inside defaults, optionals and transforms. */
function unwrap(schema: unknown): unknown {
  const definition = definitionOf(schema);
  const inner = definition?.['innerType'] ?? definition?.['in'];
  return inner === undefined ? schema : unwrap(inner);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
