/** Paths in a square of 24, drawn as lines. */
const PATHS = {
  overview: 'M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z',
  downloads: 'M12 4v11m0 0-4.5-4.5M12 15l4.5-4.5M5 20h14',
  images: 'M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9',
  upstreams: 'M7 18a4 4 0 0 1-.6-7.95A6 6 0 0 1 18 9.5 4.25 4.25 0 0 1 17.5 18zM12 11v4m0-4-2 2m2-2 2 2',
  proxy: 'M4 7h11m0 0-3-3m3 3-3 3M20 17H9m0 0 3-3m-3 3 3 3',
  agents: 'M5 4h14v6H5zM5 14h14v6H5zM9 7h.01M9 17h.01',
  webhook: 'M9 7l-5 5 5 5M15 7l5 5-5 5',
  upkeep: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5',
  rules: 'M5 5h14M5 10h14M5 15h9M5 20h6',
  ok: 'M5 12.5l4.5 4.5L19 7.5',
  warning: 'M12 4l9 16H3zM12 10v4M12 17h.01',
  error: 'M12 3a9 9 0 1 0 .01 0zM12 7.5v5.5M12 16.5h.01',
  info: 'M12 3a9 9 0 1 0 .01 0zM12 11v5.5M12 7.5h.01',
  unknown: 'M12 3a9 9 0 1 0 .01 0zM8 12h8',
  ascending: 'M12 19V6m0 0-5 5m5-5 5 5',
  descending: 'M12 5v13m0 0 5-5m-5 5-5-5',
  unsorted: 'M8 10l4-4 4 4M8 14l4 4 4-4',
  menu: 'M4 7h16M4 12h16M4 17h16',
  close: 'M6 6l12 12M18 6L6 18',
  search: 'M10.5 4a6.5 6.5 0 1 0 .01 0zM15.5 15.5L20 20',
  pin: 'M9 4h6l-1 6 3 3H7l3-3zM12 13v7',
  previous: 'M14.5 6l-6 6 6 6',
  next: 'M9.5 6l6 6-6 6',
  external: 'M9 6H5v13h13v-4M13 5h6v6M19 5l-8 8',
  theme: 'M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18',
  language: 'M12 3a9 9 0 1 0 .01 0zM3 12h18M12 3c-5 5-5 13 0 18M12 3c5 5 5 13 0 18',
  lock: 'M6 11h12v9H6zM9 11V8a3 3 0 0 1 6 0v3',
  person: 'M12 4a4 4 0 1 0 .01 0zM5 20c1-4 4-5.5 7-5.5s6 1.5 7 5.5',
} as const;

export type IconName = keyof typeof PATHS;

/** Decorative: the text next to it says the same. */
export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
