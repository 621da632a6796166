import { z } from 'zod';
import { configSchema } from '../src/config/schema.ts';
import type { Value } from './values.ts';

type Json = { [key: string]: unknown };

/** Texts under names that the user chooses. */
const TEXTS = /(?:^|\.)(?:annotations|podAnnotations|labels|commonLabels|nodeSelector)$/;
/** The chart's additions to parts of the program's configuration: an existing Secret instead of the
 *  value itself. */
const SECRET: Json = { existingSecret: { type: 'string' }, key: { type: 'string' } };

/** The JSON Schema of values.yaml: strict, so that a misspelt key stops the installation. Values
 *  that are passed through to the program have the program's own schema. */
export function valuesSchema(root: Value): Json {
  const schema = strict(root);
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Values of the kube-registry chart',
    ...schema,
    // Helm passes the key of its `condition` to a dependency, which by convention is this one.
    properties: { enabled: { description: 'For charts that depend on this one.', type: 'boolean' }, ...(schema['properties'] as Json) },
  };
}

function strict(section: Value): Json {
  const properties = Object.fromEntries(section.children.map((child) => [nameOf(child), schemaOf(child)]));
  // A chart that depends on this one may have global values of its own.
  const open = section.path === 'global' ? {} : { additionalProperties: false };
  return { type: 'object', properties, ...open };
}

function nameOf(value: Value): string {
  return value.path.slice(value.path.lastIndexOf('.') + 1);
}

function schemaOf(value: Value): Json {
  if (value.children.length > 0) return strict(value);
  const { schema, config, former, ignore } = value.tags;
  const described = value.description === '' ? {} : { description: value.description };
  const extra = schema === undefined ? {} : (JSON.parse(schema) as Json);
  if (config !== undefined) return { ...configPart(config), ...described };
  if (former !== undefined) return { ...FORMER, ...described };
  if (ignore !== undefined) return FORMER_IMAGE;
  return { ...described, ...typeOf(value), ...extra };
}

function typeOf(value: Value): Json {
  if (TEXTS.test(value.path)) return { type: 'object', additionalProperties: { type: 'string' } };
  const { preset } = value;
  if (Array.isArray(preset)) return { type: 'array' };
  if (typeof preset === 'object') return { type: 'object' };
  return { type: Number.isInteger(preset) ? 'integer' : typeof preset };
}

const FORMER_IMAGE: Json = {
  description: 'A key of the former chart; only the mirror host in repository is used.',
  type: 'object',
  properties: { repository: { type: 'string' }, tag: { type: 'string' }, pullPolicy: { type: 'string' } },
  additionalProperties: false,
};
const FORMER_TEXTS = (...keys: string[]): Json => ({
  type: 'object',
  properties: Object.fromEntries(keys.map((key) => [key, { type: 'string' }])),
  additionalProperties: false,
});
const FORMER: Json = {
  type: 'object',
  properties: {
    s3: {
      type: 'object',
      properties: {
        config: FORMER_TEXTS('region', 'bucket', 'regionEndpoint'),
        secret: FORMER_TEXTS('accessKeyId', 'secretAccessKey'),
      },
      additionalProperties: false,
    },
    image: FORMER_IMAGE,
    replicaCount: {},
    service: {},
    resources: {},
  },
  additionalProperties: false,
};

const program = z.toJSONSchema(configSchema, { target: 'draft-7', io: 'input', unrepresentable: 'any' }) as Json;

/** A part of the program's configuration, in the form that the chart accepts. */
function configPart(path: string): Json {
  let part = program;
  for (const key of path.split('.')) part = unwrap(part)[key] as Json;
  const loose = loosen(part);
  if (path === 'registry.upstreams') return withCredentials(loose);
  if (path === 'registry') {
    const properties = loose['properties'] as Json;
    return { ...loose, properties: { ...properties, upstreams: withCredentials(properties['upstreams'] as Json) } };
  }
  return loose['type'] === 'array' ? { ...loose, items: withSecret(loose['items'] as Json) } : loose;
}

function unwrap(schema: Json): Json {
  if (schema['properties'] === undefined) throw new Error(`no keys in ${JSON.stringify(schema).slice(0, 200)}`);
  return schema['properties'] as Json;
}

/** Empty texts mean unset. Required keys may be set elsewhere in the values, and the program itself
 *  checks them. */
function loosen(schema: unknown): Json {
  if (Array.isArray(schema)) return schema.map((item) => loosen(item)) as unknown as Json;
  if (typeof schema !== 'object' || schema === null) return schema as Json;
  const { required: _required, default: _default, ...rest } = schema as Json;
  const loose = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, key === 'enum' ? value : loosen(value)]));
  const { type, description, ...own } = loose;
  if (type !== 'string' || Object.keys(own).length === 0) return loose;
  return { ...(description === undefined ? {} : { description }), anyOf: [{ type, ...own }, { const: '' }] };
}

function withSecret(item: Json): Json {
  const properties = item['properties'] as Json | undefined;
  return properties === undefined ? item : { ...item, properties: { ...properties, ...SECRET } };
}

function withCredentials(upstreams: Json): Json {
  const text = JSON.stringify(upstreams);
  const marker = '"passwordFile":';
  if (!text.includes(marker)) throw new Error('registry.upstreams has no credentials');
  return JSON.parse(text.replaceAll(marker, `"existingSecret":{"type":"string"},${marker}`)) as Json;
}
