/** In the order of the navigation. */
export const VIEW_NAMES = ['overview', 'downloads', 'images', 'upstreams', 'proxy', 'agents', 'webhook', 'rules', 'upkeep'] as const;
export type ViewName = (typeof VIEW_NAMES)[number];
