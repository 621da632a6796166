import { z } from 'zod';
import { agentSchema } from './agent-schema.ts';
import { clashSchema } from './clash-schema.ts';
import { pullSecretsSchema } from './pull-secrets-schema.ts';
import { registrySchema } from './registry-schema.ts';
import { webhookSchema } from './webhook-schema.ts';

/** The whole configuration file: the one source of truth for the program, the JSON Schema and
 *  docs/configuration.md. */
export const configSchema = z.strictObject({
  log: z
    .strictObject({
      level: z.enum(['debug', 'info', 'warn', 'error']).prefault('info').describe('Minimum severity to log.'),
      format: z.enum(['auto', 'json', 'text']).prefault('auto').describe('auto: readable text on a terminal, JSON elsewhere.'),
    })
    .prefault({})
    .describe('The log, which every command writes to stdout.'),
  registry: registrySchema.prefault({}).describe('The pull-through registry. The agent and the webhook use its upstreams as well.'),
  agent: agentSchema.prefault({}).describe('The agent, which runs on every node.'),
  webhook: webhookSchema.prefault({}).describe('The admission webhook, which rewrites the images of pods.'),
  clash: clashSchema.prefault({}).describe('The proxy: mihomo, with a config built from subscriptions.'),
  pullSecrets: pullSecretsSchema
    .prefault({})
    .describe('The pull secrets that the webhook and the registry read, so that private images can be cached: docs/private-images.md.'),
});

/** Whether any pull secrets are read. */
export function readsPullSecrets({ namespaces, allNamespaces }: PullSecretsConfig): boolean {
  return allNamespaces || namespaces.length > 0;
}

export type Config = z.output<typeof configSchema>;
export type AgentConfig = Config['agent'];
export type WebhookConfig = Config['webhook'];
export type ClashConfig = Config['clash'];
export type PullSecretsConfig = Config['pullSecrets'];
export { INFRASTRUCTURE_NAMESPACES } from './webhook-schema.ts';
export { DEFAULT_UPSTREAMS } from './registry-schema.ts';
export type { RegistryConfig, S3Config, Upstream } from './registry-schema.ts';
export type { Mirror } from './upstream-schema.ts';
