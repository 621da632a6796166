import { z } from 'zod';
import { downloadsSchema } from './downloads.ts';
import { errorSchema } from './common.ts';
import { jobsSchema } from './actions.ts';
import { ACTION_HEADER, OPERATIONS, type Operation } from './operations.ts';

type Document = Record<string, unknown>;

/** The OpenAPI 3.1 document of the console's API, which uses JSON Schema 2020-12 as zod writes
 *  it. */
export function openApiDocument(version: string): Document {
  const paths: Record<string, Document> = {};
  for (const [operationId, operation] of Object.entries<Operation>(OPERATIONS)) {
    (paths[operation.path] ??= {})[operation.method.toLowerCase()] = describe(operationId, operation);
  }
  paths['/api/events'] = { get: events() };
  return {
    openapi: '3.1.0',
    info: {
      title: 'kube-registry console',
      version,
      description: 'The API of the console, on registry.admin. Times are ISO 8601 in UTC, sizes are bytes.',
    },
    paths,
    components: {
      schemas: { Error: jsonSchema(errorSchema, 'output') },
      securitySchemes: { session: { type: 'apiKey', in: 'cookie', name: 'kube-registry-session' } },
    },
  };
}

function describe(operationId: string, { summary, method, query, body, response, acts }: Operation): Document {
  return {
    operationId,
    summary,
    ...(acts ? { security: [{ session: [] }] } : {}),
    parameters: [...(query === undefined ? [] : parametersOf(query)), ...(method === 'GET' ? [] : [ACTION_PARAMETER])],
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: jsonSchema(body, 'input') } } } }),
    responses: {
      '200': { description: response.description ?? 'Done.', content: { 'application/json': { schema: jsonSchema(response, 'output') } } },
      default: ERROR,
    },
  };
}

const ERROR = {
  description: 'An error.',
  content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
};

const ACTION_PARAMETER = {
  name: ACTION_HEADER,
  in: 'header',
  required: true,
  description: 'Any value: pages of other origins cannot send it.',
  schema: { type: 'string' },
};

function parametersOf(query: z.ZodObject): Document[] {
  const { properties = {}, required = [] } = jsonSchema(query, 'input') as { properties?: Record<string, Document>; required?: string[] };
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    schema,
  }));
}

function events(): Document {
  return {
    operationId: 'events',
    summary: 'Live updates, as server-sent events',
    description: 'Events named downloads and jobs, whose data are whole snapshots; at most one of each per second.',
    responses: {
      '200': {
        description: 'A stream of events.',
        content: { 'text/event-stream': { schema: { oneOf: [jsonSchema(downloadsSchema, 'output'), jsonSchema(jobsSchema, 'output')] } } },
      },
      default: ERROR,
    },
  };
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): Document {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io }) as Document;
  return rest;
}
