import { z } from 'zod';
import { time } from './common.ts';

export const loginSchema = z.strictObject({ user: z.string().min(1).max(255), password: z.string().min(1).max(1000) });

export const sessionSchema = z
  .strictObject({
    user: z.string().nullable().describe('null: not logged in.'),
    expiresAt: time.nullable(),
    canLogIn: z.boolean().describe('Whether registry.console.users is set. Without it, the console is read-only.'),
  })
  .describe('The logged-in user.');
export type Session = z.output<typeof sessionSchema>;
