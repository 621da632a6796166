import { useState } from 'preact/hooks';
import { apiPath } from '../data/api.ts';
import { formatBytes, UNKNOWN } from '../data/format.ts';
import type { ImageDetail } from '../data/model.ts';
import { useQuery } from '../data/query.ts';
import { route, routeTo } from '../data/router.ts';
import { t } from '../language/language.ts';
import { Loaded } from '../parts/async.tsx';
import { Badge, Section } from '../parts/marks.tsx';
import { Digest, Foreign } from '../parts/names.tsx';
import { Table, type Column } from '../parts/table.tsx';
import { Ago, When } from '../parts/time.tsx';
import { View } from '../parts/view.tsx';
import { DeleteButton, DeleteTag, PinButton, WarmButton } from './image-actions.tsx';
import { ReadOnly } from './warm.tsx';

type Tag = ImageDetail['tags'][number];
type Platform = ImageDetail['platforms'][number];
type Pod = NonNullable<ImageDetail['pods']>[number];

/** One image: its tags, platforms, layers and labels, and the pods that use it. */
export function ImagePage() {
  const { rest: repository, parameters } = route.value;
  const query = useQuery<ImageDetail>(apiPath('/api/image', { repository, digest: parameters.get('digest') ?? '' }));
  return (
    <View
      title={<Foreign text={repository} />}
      lead={
        <>
          <a href={routeTo('images')}>{t('view.images')}</a> › <code class="long">{parameters.get('digest')}</code>
        </>
      }
    >
      <Loaded query={query}>{(image) => <Detail image={image} reload={query.reload} />}</Loaded>
    </View>
  );
}

function Detail({ image, reload }: { image: ImageDetail; reload: () => void }) {
  const [deleting, setDeleting] = useState<Tag | undefined>(undefined);
  return (
    <>
      <Facts image={image} />
      <Section id="tags" title={t('image.tags')}>
        <Table
          caption={t('image.tags')}
          columns={tagColumns(image, { reload, remove: setDeleting })}
          rows={image.tags}
          keyOf={({ tag }) => tag}
          empty={t('image.noTags')}
        />
        <div class="row">
          <WarmButton image={image} />
          {image.tags.length === 0 ? <PinButton image={image} tag={undefined} pinned={image.pinned} reload={reload} /> : null}
        </div>
        <ReadOnly />
      </Section>
      <Section id="platforms" title={t('image.platforms')}>
        {image.platforms.map((platform) => (
          <PlatformPart key={platform.digest} platform={platform} isOpen={image.platforms.length === 1 || platform.stored} />
        ))}
      </Section>
      <Section id="pods" title={t('image.usedBy')}>
        {image.pods === null ? (
          <p class="empty">{t('image.podsUnknown')}</p>
        ) : (
          <Table
            caption={t('image.usedBy')}
            columns={podColumns()}
            rows={image.pods}
            keyOf={({ namespace, pod, container }) => `${namespace}/${pod}/${container}`}
            empty={t('image.noPods')}
          />
        )}
      </Section>
      <Pairs id="annotations" title={t('image.annotations')} pairs={image.annotations} />
      {deleting === undefined ? null : <DeleteTag image={image} tag={deleting.tag} close={() => setDeleting(undefined)} done={reload} />}
    </>
  );
}

function Facts({ image }: { image: ImageDetail }) {
  const { size, lastUsed, firstSeen, kept, pinned, denied, mediaType } = image;
  return (
    <dl class="facts panel">
      <dt>{t('image.size')}</dt>
      <dd>{formatBytes(size)}</dd>
      <dt>{t('image.lastUsed')}</dt>
      <dd>
        <When at={lastUsed} />
      </dd>
      {firstSeen === null ? null : (
        <>
          <dt>{t('image.firstSeen')}</dt>
          <dd>
            <When at={firstSeen} />
          </dd>
        </>
      )}
      <dt>{t('image.pruning')}</dt>
      <dd>{kept === null ? t('image.prunable') : t(pinned ? 'image.kept.pinned' : `image.kept.${kept}`)}</dd>
      {denied === null ? null : (
        <>
          <dt>{t('view.rules')}</dt>
          <dd>
            <Badge tone="bad">{t('image.denied')}</Badge> <code>{denied}</code>
          </dd>
        </>
      )}
      <dt>{t('image.mediaType')}</dt>
      <dd>
        <code>
          <Foreign text={mediaType} />
        </code>
      </dd>
    </dl>
  );
}

function tagColumns(image: ImageDetail, { reload, remove }: { reload: () => void; remove: (tag: Tag) => void }): Column<Tag>[] {
  return [
    {
      key: 'tag',
      title: t('image.tag'),
      isHeader: true,
      wide: true,
      cell: ({ tag, goneSince }) => (
        <>
          <code>{tag}</code>
          {goneSince === null ? null : (
            <span class="badges">
              <Badge tone="warning">
                {t('image.goneSince')} <Ago at={goneSince} />
              </Badge>
            </span>
          )}
        </>
      ),
    },
    { key: 'checked', title: t('image.checked'), cell: ({ checkedAt }) => <Ago at={checkedAt} /> },
    {
      key: 'actions',
      title: t('image.actions'),
      cell: (own) => (
        <span class="row actions">
          <PinButton image={image} tag={own.tag} pinned={own.pinned} reload={reload} />
          <DeleteButton tag={own.tag} open={() => remove(own)} />
        </span>
      ),
    },
  ];
}

function PlatformPart({ platform, isOpen }: { platform: Platform; isOpen: boolean }) {
  const { size, stored, created, layers, labels } = platform;
  return (
    <details class="panel platform" open={isOpen}>
      <summary>
        <b>
          <Foreign text={platform.platform} />
        </b>
        <span>{size === null ? UNKNOWN : formatBytes(size)}</span>
        <Badge tone={stored ? 'good' : 'neutral'}>{t(stored ? 'image.stored' : 'image.notStored')}</Badge>
      </summary>
      <dl class="facts">
        <dt>{t('image.digest')}</dt>
        <dd>
          <code class="long">{platform.digest}</code>
        </dd>
        <dt>{t('image.created')}</dt>
        <dd>
          <When at={created} />
        </dd>
      </dl>
      <Layers layers={layers} name={platform.platform} />
      <Pairs id={`labels-${platform.digest}`} title={t('image.labels')} pairs={labels} />
    </details>
  );
}

function Layers({ layers, name }: { layers: Platform['layers']; name: string }) {
  const columns: Column<Platform['layers'][number]>[] = [
    { key: 'digest', title: t('image.layer'), isHeader: true, wide: true, cell: ({ digest }) => <Digest digest={digest} /> },
    { key: 'size', title: t('image.size'), numeric: true, cell: ({ size }) => formatBytes(size) },
    {
      key: 'stored',
      title: t('image.state'),
      cell: ({ stored }) => <Badge tone={stored ? 'good' : 'neutral'}>{t(stored ? 'image.stored' : 'image.notStored')}</Badge>,
    },
  ];
  if (layers.length === 0) return null;
  const numbered = layers.map((layer, index) => ({ ...layer, index }));
  return (
    <Table
      caption={t('image.layersOf', { platform: name })}
      columns={columns}
      rows={numbered}
      keyOf={({ digest }) => `${numbered.findIndex((layer) => layer.digest === digest)} ${digest}`}
      empty=""
    />
  );
}

/** Labels and annotations: untrusted text. */
function Pairs({ id, title, pairs }: { id: string; title: string; pairs: Record<string, string> }) {
  const entries = Object.entries(pairs);
  if (entries.length === 0) return null;
  return (
    <Section id={id} title={title}>
      <dl class="facts pairs">
        {entries.flatMap(([name, value]) => [
          <dt key={`name ${name}`}>
            <Foreign text={name} />
          </dt>,
          <dd key={`value ${name}`}>
            <Foreign text={value} />
          </dd>,
        ])}
      </dl>
    </Section>
  );
}

function podColumns(): Column<Pod>[] {
  return [
    { key: 'pod', title: t('pod.pod'), isHeader: true, wide: true, cell: ({ pod }) => pod },
    { key: 'namespace', title: t('pod.namespace'), cell: ({ namespace }) => namespace },
    { key: 'container', title: t('pod.container'), cell: ({ container }) => container },
    { key: 'node', title: t('pod.node'), cell: ({ node }) => node ?? UNKNOWN },
  ];
}
