import { fieldsOf, textOf, type Fields } from '../io/untrusted.ts';

/** A field of a pod that names an image. */
export interface ImagePlace {
  /** The container's name, or `volume/<name>` for an image volume. */
  name: string;
  /** JSON Pointer to the image (RFC 6901). */
  path: string;
  image: string;
  pullPolicy: string | undefined;
}

const CONTAINER_LISTS = ['initContainers', 'containers', 'ephemeralContainers'] as const;

/** Lists every field of a pod that names an image. Malformed entries are skipped. */
export function imagesOf(pod: Fields): ImagePlace[] {
  const spec = fieldsOf(pod['spec']);
  const containers = CONTAINER_LISTS.flatMap((list) =>
    indexed(spec[list]).map(([index, container]) => ({
      name: textOf(container['name']) ?? '',
      path: `/spec/${list}/${index}/image`,
      image: textOf(container['image']) ?? '',
      pullPolicy: textOf(container['imagePullPolicy']),
    })),
  );
  const volumes = indexed(spec['volumes']).map(([index, volume]) => {
    const image = fieldsOf(volume['image']);
    return {
      name: `volume/${textOf(volume['name']) ?? ''}`,
      path: `/spec/volumes/${index}/image/reference`,
      image: textOf(image['reference']) ?? '',
      pullPolicy: textOf(image['pullPolicy']),
    };
  });
  return [...containers, ...volumes].filter(({ image }) => image !== '');
}

/** The elements of a list with their indexes, which JSON Pointers need. */
function indexed(value: unknown): [number, Fields][] {
  return Array.isArray(value) ? value.map((item, index) => [index, fieldsOf(item)]) : [];
}
