// Makes config.schema.json and configuration.md from the configuration's schema
// (src/config/schema.ts), and console-api.json from the schemas of the console (src/console/api).
// With --check it only says whether they are up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { renderCompatibility } from './compatibility.ts';
import own from '../package.json' with { type: 'json' };
import { configSchema, DEFAULT_UPSTREAMS } from '../src/config/schema.ts';
import { openApiDocument } from '../src/console/api/openapi.ts';

interface JsonSchema {
  type?: string;
  title?: string;
  description?: string;
  default?: unknown;
  const?: unknown;
  enum?: unknown[];
  anyOf?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  additionalProperties?: JsonSchema | boolean;
  items?: JsonSchema;
  required?: string[];
  minimum?: number;
  maximum?: number;
}

interface Section {
  path: string;
  description: string;
  rows: string[];
}

const schema = z.toJSONSchema(configSchema, { io: 'input' }) as JsonSchema;

/** The schema inside "or null". */
function present(part: JsonSchema): JsonSchema {
  return part.anyOf?.find(({ type }) => type === 'object') ?? part;
}

/** The keys of `part`, and how the path of a key is written; undefined if it has none. */
function keysOf(part: JsonSchema, path: string): { properties: Record<string, JsonSchema>; path: string; required: string[] } | undefined {
  const { properties, required = [], additionalProperties, items } = present(part);
  if (properties !== undefined) return { properties, path, required };
  if (items !== undefined) return keysOf(items, `${path}[]`);
  if (typeof additionalProperties === 'object') return keysOf(additionalProperties, `${path}.NAME`);
  return undefined;
}

function sections(part: JsonSchema, path: string): Section[] {
  const keys = keysOf(part, path);
  if (keys === undefined) return [];
  const entries = Object.entries(keys.properties);
  const rows = entries.map(([key, value]) => row(key, value, keys.required.includes(key)));
  const inner = entries.flatMap(([key, value]) => sections(value, keys.path === '' ? key : `${keys.path}.${key}`));
  return [{ path: keys.path, description: part.description ?? '', rows }, ...inner];
}

function row(key: string, value: JsonSchema, required: boolean): string {
  const cells = [`\`${key}\``, typeOf(value), required ? 'required' : presetOf(value), value.description ?? ''];
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

function typeOf(part: JsonSchema): string {
  const value = present(part);
  if (value.title !== undefined) return value.title;
  if (value.enum !== undefined) return value.enum.map((choice) => `\`${String(choice)}\``).join(', ');
  if (value.type === 'array') return value.items === undefined ? 'list' : `list of ${typeOf(value.items)}`;
  if (value.type === 'object')
    return value.properties === undefined
      ? `names, each with ${typeOf(asSchema(value.additionalProperties))}`
      : `${part.anyOf?.some(({ type }) => type === 'string') === true ? 'text, or ' : ''}keys, below`;
  if (value.type === 'integer') return `number, ${value.minimum} to ${value.maximum}`;
  return { string: 'text', boolean: '`true`, `false`' }[value.type ?? ''] ?? 'anything';
}

function asSchema(value: JsonSchema | boolean | undefined): JsonSchema {
  return typeof value === 'object' ? value : {};
}

function presetOf({ default: preset, type }: JsonSchema): string {
  if (preset === undefined || type === 'object') return '';
  return Array.isArray(preset) && preset.length > 3
    ? 'below'
    : `\`${typeof preset === 'string' ? preset || '""' : JSON.stringify(preset)}\``;
}

function longDefaults(): string[] {
  const list = asSchema(asSchema(schema.properties?.['webhook']).properties?.['exclude']).properties?.['namespaces']?.default as string[];
  return ['`webhook.exclude.namespaces` is by default:', '', list.map((name) => `\`${name}\``).join(', ')];
}

function upstreamTable(): string[] {
  const rows = Object.entries(DEFAULT_UPSTREAMS).map(([name, { url, hosts = [], defaultNamespace = '' }]) => {
    return `| \`${name}\` | ${url} | ${hosts.map((host) => `\`${host}\``).join(', ')} | ${defaultNamespace} |`;
  });
  return ['| name | url | hosts | defaultNamespace |', '|---|---|---|---|', ...rows];
}

function renderSection({ path, description, rows }: Section): string[] {
  const depth = path.split('.').length;
  const extra = path === 'registry.upstreams.NAME' ? ['The defaults:', '', ...upstreamTable(), ''] : [];
  const after = path === 'webhook.exclude' ? ['', ...longDefaults()] : [];
  return [
    `${'#'.repeat(Math.min(depth + 1, 4))} ${path}`,
    '',
    ...(description === '' ? [] : [description, '']),
    ...extra,
    '| key | value | default | description |',
    '|---|---|---|---|',
    ...rows,
    ...after,
    '',
  ];
}

const INTRODUCTION = `<!-- Generated from src/config/schema.ts by npm run generate. -->
# Configuration

\`kube-registry COMMAND --config FILE\` reads one YAML file for all commands; each command uses its own part. Keys that are not set
have their defaults. \`KUBE_REGISTRY_CONFIG\` can name the file instead, and \`--set registry.cache.tagTtl=5m\` overrides a single key. If
a key is unknown or its value wrong, the program exits at once (exit code 2) with a message that shows the key, the value found and the
accepted values. Editors can use the same information as a JSON Schema: [config.schema.json](config.schema.json).

Keep secrets in files (\`…File\`), which are read again when they change. Durations are written as \`300ms\`, \`10s\`, \`5m\`, \`24h\`,
\`30d\` or \`0\`; sizes as \`64MiB\`, \`100GiB\` or a number of bytes; addresses as \`127.0.0.1:5000\` or \`[::]:5000\`; a proxy as
\`direct\`, \`http://127.0.0.1:7890\` or \`socks5h://127.0.0.1:7891\`. The proxy resolves the names.

\`\`\`yaml
registry:
  storage:
    s3: { bucket: images, endpoint: http://minio.storage:9000, accessKeyIdFile: /run/secrets/id, secretAccessKeyFile: /run/secrets/key }
  proxy: http://127.0.0.1:7890            # the proxy for every upstream
  upstreams:
    dockerhub:                            # merged over the default of that name
      credentials:
        - { usernameFile: /run/secrets/user, passwordFile: /run/secrets/password }
    harbor: { url: https://harbor.example.com, proxy: direct }
    gcr: null                             # removes this default
\`\`\`
`;

/** Each generated file with its expected content. */
function generated(): Record<string, string> {
  const [, ...parts] = sections(schema, '');
  return {
    'config.schema.json': `${JSON.stringify({ ...schema, title: 'The configuration of kube-registry' }, null, 1)}\n`,
    'console-api.json': `${JSON.stringify(openApiDocument(own.version), null, 1)}\n`,
    'compatibility.md': renderCompatibility('en'),
    'compatibility.zh-CN.md': renderCompatibility('zh'),
    'configuration.md': `${INTRODUCTION}\n${parts.flatMap(renderSection).join('\n')}`,
  };
}

const check = process.argv.includes('--check');
for (const [file, content] of Object.entries(generated())) {
  const path = join(import.meta.dirname, file);
  if (!check) writeFileSync(path, content);
  else if (readFileSync(path, 'utf8') !== content) {
    process.stderr.write(`docs/${file} is not up to date: npm run generate\n`);
    process.exitCode = 1;
  }
}
