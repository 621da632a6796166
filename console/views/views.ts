import type { IconName } from '../parts/icon.tsx';

export const VIEW_NAMES = ['overview', 'downloads', 'images', 'upstreams', 'proxy', 'agents', 'webhook', 'rules', 'upkeep'] as const;
export type ViewName = (typeof VIEW_NAMES)[number];

/** In the order of the navigation. */
export const VIEWS: readonly { name: ViewName; icon: IconName }[] = VIEW_NAMES.map((name) => ({
  name,
  icon: name === 'rules' ? 'access' : name,
}));
