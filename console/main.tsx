import { render } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { ComponentType } from 'preact';
import { startClock } from './data/clock.ts';
import { followEvents } from './data/live.ts';
import { followRoute, route } from './data/router.ts';
import { loadSession } from './data/session.ts';
import { followLanguage, language, t } from './language/language.ts';
import { Shell } from './shell.tsx';
import { Agents } from './views/agents.tsx';
import { Downloads } from './views/downloads.tsx';
import { ImagePage } from './views/image.tsx';
import { ImagesPage } from './views/images.tsx';
import { OverviewPage } from './views/overview.tsx';
import { Proxy } from './views/proxy.tsx';
import { Rules } from './views/rules.tsx';
import { Upkeep } from './views/upkeep.tsx';
import { UpstreamsPage } from './views/upstreams.tsx';
import { VIEW_NAMES, type ViewName } from './views/names.ts';
import { Webhook } from './views/webhook.tsx';

const PAGES: Record<ViewName, ComponentType> = {
  overview: OverviewPage,
  downloads: Downloads,
  images: () => (route.value.rest === '' ? <ImagesPage /> : <ImagePage />),
  upstreams: UpstreamsPage,
  proxy: Proxy,
  agents: Agents,
  webhook: Webhook,
  rules: Rules,
  upkeep: Upkeep,
};

/** Keeps Preact from retaining old pages. An element that is passed as a child, as this one is,
 *  stays in memory with what it first rendered; if it renders itself again, as pages do, each
 *  rendering can retain the next one. */
function Place({ page: Page }: { page: ComponentType }) {
  return <Page />;
}

function App() {
  const view = VIEW_NAMES.find((name) => name === route.value.view) ?? 'overview';
  const Page = PAGES[view];
  const place = `${view}/${route.value.rest}`;
  const isFirst = useRef(true);
  // As after loading a new page: scroll to the top, and move the focus to the beginning.
  useEffect(() => {
    if (!isFirst.current) {
      scrollTo(0, 0);
      document.querySelector<HTMLElement>('#content')?.focus();
    }
    isFirst.current = false;
  }, [place]);
  useEffect(() => {
    document.title = `${t(`view.${view}`)} · kube-registry`;
  }, [view, language.value]);
  return (
    <Shell view={view}>
      <Place key={place} page={Page} />
    </Shell>
  );
}

followLanguage();
followRoute();
startClock();
const root = document.querySelector('#app');
if (root !== null) render(<App />, root);
// After the view, whose own requests come first: browsers open six connections at most.
followEvents();
loadSession().catch(() => undefined); // requested again by the first action
