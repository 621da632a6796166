import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { formatMoment, UNKNOWN } from '../data/format.ts';
import { now } from '../data/clock.ts';
import { isDark } from '../data/theme.ts';
import { language, locale, t } from '../language/language.ts';

export interface Series {
  name: string;
  /** A custom property of the style sheet: --plot-1. */
  color: string;
  values: readonly (number | null)[];
  /** Drawn as an area. */
  filled?: boolean;
}

export interface PlotProps {
  title: string;
  /** In ms since the epoch, one per value. */
  times: readonly number[];
  series: readonly Series[];
  format: (value: number) => string;
  /** Whether steps of the axis are powers of two, as for bytes. */
  binary?: boolean;
}

const HEIGHT_PX = 180;
const TABLE_ROWS = 12;
/** 1, 2, 4 … of each unit. */
const BINARY_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

/** Lines over time. The figures below the plot are those at the pointer, or the last ones. A table
 *  contains all values for users who cannot see the plot. */
export function Plot({ title, times, series, format, binary = false }: PlotProps) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [at, setAt] = useState<number | undefined>(undefined);
  const shape = [isDark(), language.value, ...series.map(({ name }) => name)].join('|');
  const data = useMemo(
    () => [times.map((time) => time / 1000), ...series.map(({ values }) => values)] as uPlot.AlignedData,
    [times, series],
  );
  useEffect(() => {
    const element = frame.current;
    if (element === null) return undefined;
    const made = new uPlot(optionsOf(element, { series, format, binary, pointed: setAt }), data, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data), [data]);
  const shown = at ?? lastIndex(series);
  return (
    <figure class="plot">
      <figcaption>
        <span class="plot-title">{title}</span>
        <Legend series={series} index={shown} format={format} />
        <span class="plot-time">{at === undefined || times[at] === undefined ? null : formatMoment(times[at], now.value)}</span>
      </figcaption>
      <div class="plot-frame" ref={frame} aria-hidden="true" />
      <Values title={title} times={times} series={series} format={format} />
    </figure>
  );
}

function Legend({ series, index, format }: { series: readonly Series[]; index: number; format: (value: number) => string }) {
  return (
    <span class="legend">
      {series.map(({ name, color, values }) => {
        const value = values[index];
        return (
          <span key={name} class="legend-entry">
            <span class={`swatch ${color}`} aria-hidden="true" />
            {name} <b>{value === null || value === undefined ? UNKNOWN : format(value)}</b>
          </span>
        );
      })}
    </span>
  );
}

function Values({ title, times, series, format }: Omit<PlotProps, 'binary'>) {
  const step = Math.max(1, Math.ceil(times.length / TABLE_ROWS));
  const indexes = times.map((_, index) => index).filter((index) => (times.length - 1 - index) % step === 0);
  return (
    <details class="plot-values">
      <summary>{t('plot.values')}</summary>
      <div class="scroll" role="region" aria-label={title} tabIndex={0}>
        <table class="small-table">
          <thead>
            <tr>
              <th scope="col">{t('plot.time')}</th>
              {series.map(({ name }) => (
                <th key={name} scope="col" class="numeric">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {indexes.map((index) => (
              <tr key={index}>
                <th scope="row">{formatMoment(times[index] ?? 0, now.value)}</th>
                {series.map(({ name, values }) => (
                  <td key={name} class="numeric">
                    {typeof values[index] === 'number' ? format(values[index]) : UNKNOWN}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

function lastIndex(series: readonly Series[]): number {
  const values = series[0]?.values ?? [];
  return values.findLastIndex((value) => value !== null);
}

interface Drawing {
  series: readonly Series[];
  format: (value: number) => string;
  binary: boolean;
  pointed: (index: number | undefined) => void;
}

function optionsOf(element: HTMLElement, { series, format, binary, pointed }: Drawing): uPlot.Options {
  const color = (name: string) => resolveColor(element, name);
  const font = `12px ${getComputedStyle(element).fontFamily}`;
  const axis = { stroke: color('muted'), font, grid: { stroke: color('grid'), width: 1 }, ticks: { show: false } };
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    padding: [8, 18, 0, 0], // half of the last time
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] } },
    axes: [
      { ...axis, values: (_, moments) => moments.map((moment) => formatClock(moment * 1000)), space: 70, size: 28 },
      {
        ...axis,
        values: (_, values) => values.map((value) => format(value)),
        size: 72,
        space: 36,
        ...(binary ? { incrs: BINARY_STEPS } : {}),
      },
    ],
    series: [
      {},
      ...series.map(({ name, color: own, filled }) => ({
        label: name,
        stroke: color(own),
        width: 1.75,
        // A line needs two points.
        points: { size: 5, show: isSingle },
        spanGaps: true,
        ...(filled === true ? { fill: `color-mix(in srgb, ${color(own)} 16%, transparent)` } : {}),
      })),
    ],
    hooks: { setCursor: [({ cursor }) => pointed(cursor.idx ?? undefined)] },
  };
}

function isSingle({ data }: uPlot, index: number): boolean {
  return Array.from(data[index] ?? []).filter((value) => value != null).length < 2;
}

/** A canvas knows neither custom properties nor light-dark(). */
function resolveColor(element: HTMLElement, name: string): string {
  element.style.color = `var(--${name})`;
  const { color } = getComputedStyle(element);
  element.style.color = '';
  return color;
}

function formatClock(time: number): string {
  return new Intl.DateTimeFormat(locale(), { hour: '2-digit', minute: '2-digit' }).format(time);
}
