// Draws a dashboard of Grafana with Grafana's own components, from answers of Prometheus that were written down: board.json
// beside this page, which is a `Told`. What is then to be seen is in `window.drawn`.

import {
  applyFieldOverrides,
  applyNullInsertThreshold,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  EventBusSrv,
  FieldConfigProperty,
  FieldType,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  identityOverrideProcessor,
  renderLegendFormat,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  ThresholdsMode,
  toDataFrame,
  transformDataFrame,
  VizOrientation,
  type DataFrame,
  type DataTransformerConfig,
  type DisplayValueAlignmentFactors,
  type FieldConfigPropertyItem,
  type FieldConfigSource,
  type FieldDisplay,
  type GrafanaTheme2,
  type TimeRange,
} from '@grafana/data';
import {
  BarGauge,
  BigValue,
  GlobalStyles,
  PanelChrome,
  PanelContextProvider,
  TimeSeries,
  VizRepeater,
  type VizRepeaterRenderValueProps,
} from '@grafana/ui';
// Called unstable, which is no matter where the version is pinned: it is what Grafana's own panel draws a table with.
import { TableNG } from '@grafana/ui/unstable';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';

interface Told {
  board: { panels: Panel[] };
  /** What Prometheus says to each target: by the panel's id, then by the target's refId. */
  answers: Record<string, Record<string, Series[]>>;
  /** In milliseconds since 1970. */
  from: number;
  to: number;
  /** Milliseconds between two answers in a range of time. */
  step: number;
}

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets: Target[];
  fieldConfig: FieldConfigSource;
  options: any;
  transformations?: DataTransformerConfig[];
}

interface Target {
  refId: string;
  format?: string;
  legendFormat?: string;
}

/** Seconds since 1970, and a number as Prometheus writes it. */
type Point = [number, string];

/** With one value if the question was about a moment, or with many if it was about a range of time. */
type Series = { metric: Record<string, string> } & ({ value: Point } | { values: Point[] });

/** Where a panel is, in pixels. */
interface Place {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** What there is to be seen of a panel. */
interface Shown {
  title: string;
  type: string;
  hasData: boolean;
  /** By the end of its panel. */
  isTitleCut: boolean;
}

declare global {
  interface Window {
    drawn: Promise<Shown[]>;
  }
}

// Grafana's grid, in pixels.
const COLUMNS = 24;
const ROW = 30;
const GAP = 8;
/** On anything narrower panels stand below each other. */
const NARROW = 769;

window.drawn = fetch('board.json').then((answer) => answer.json()).then(draw);

async function draw({ board, answers, from, to, step }: Told): Promise<Shown[]> {
  register(board.panels);
  const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
  const theme = createTheme({ colors: { mode: isDark ? 'dark' : 'light' } });
  await loadFonts(theme);
  const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
  const main = document.querySelector('main')!;
  // There will be a scroll bar: it is there before the width is measured.
  main.style.height = '200vh';
  const places = lay(board.panels, main.clientWidth);
  const panels = board.panels.map(async (panel, at) => {
    const style = { ...places[at], position: 'absolute' as const };
    if (panel.type === 'row') {
      return <h2 key={panel.id} style={{ ...style, margin: 0, fontSize: 16 }}>{panel.title}</h2>;
    }
    const about = await prepared(panel, answers[panel.id] ?? {}, step, theme);
    const { width, height } = places[at];
    const padding = panel.type === 'table' ? 'none' : 'md';
    return (
      <section key={panel.id} data-title={panel.title} data-type={panel.type} style={style}>
        <PanelChrome title={panel.title} description={panel.description} width={width} height={height} padding={padding}>
          {(width, height) => <Drawing {...about} timeRange={timeRange} width={width} height={height} />}
        </PanelChrome>
      </section>
    );
  });
  main.style.height = `${Math.max(...places.map(({ top, height }) => top + height))}px`;
  createRoot(main).render(
    <ThemeContext.Provider value={theme}>
      <PanelContextProvider value={{ eventsScope: 'board', eventBus: new EventBusSrv() }}>
        {await Promise.all(panels)}
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
  return seen(board.panels.filter(({ type }) => type !== 'row'));
}

/** What Grafana says to its libraries when it starts: which properties a field has, and how frames may be transformed. */
function register(panels: Panel[]) {
  const standard = Object.values(FieldConfigProperty).map((path) => property(path, path, false));
  // Those of a kind of panel: all that these panels set.
  const withFields = panels.filter(({ type }) => type !== 'row');
  const custom = new Set(withFields.flatMap(({ type, fieldConfig: { defaults, overrides } }) => [
    ...Object.keys({ ...ofType(type).custom, ...defaults.custom }).map((path) => `custom.${path}`),
    ...overrides.flatMap(({ properties }) => properties.map(({ id }) => id)).filter((id) => id.startsWith('custom.')),
  ]));
  const ofPanels = [...custom].map((id) => property(id, id.replace('custom.', ''), true));
  standardFieldConfigEditorRegistry.setInit(() => [...standard, ...ofPanels]);
  const { organizeFieldsTransformer: organize } = standardTransformers;
  const ofFrames = { id: organize.id, name: organize.name, transformation: async () => organize };
  // What is left out is for whoever edits.
  standardTransformersRegistry.setInit(() => [{ ...ofFrames, editor: () => null, imageDark: '', imageLight: '' }]);
}

function property(id: string, path: string, isCustom: boolean): FieldConfigPropertyItem {
  const forEditing = { name: id, settings: {}, editor: () => null, override: () => null };
  return { id, path, isCustom, process: identityOverrideProcessor, shouldApply: () => true, ...forEditing };
}

/** Text is measured before it is drawn, and must not have another width afterwards. */
async function loadFonts(theme: GrafanaTheme2) {
  const styles = createRoot(document.getElementById('styles')!);
  flushSync(() => styles.render(<ThemeContext.Provider value={theme}><GlobalStyles /></ThemeContext.Provider>));
  await Promise.all(['400', '500'].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
}

/** Where the panels are on a page that is so wide. */
function lay(panels: Panel[], width: number): Place[] {
  const high = (rows: number) => rows * (ROW + GAP) - GAP;
  if (innerWidth >= NARROW) {
    const column = (width + GAP) / COLUMNS;
    return panels.map(({ gridPos: { x, y, w, h } }) => (
      { left: x * column, top: y * (ROW + GAP), width: w * column - GAP, height: high(h) }
    ));
  }
  const places = new Map<Panel, Place>();
  const order = [...panels].sort(({ gridPos: a }, { gridPos: b }) => a.y - b.y || a.x - b.x);
  let top = 0;
  for (const panel of order) {
    const height = high(panel.gridPos.h);
    places.set(panel, { left: 0, top, width, height });
    top += height + GAP;
  }
  return panels.map((panel) => places.get(panel)!);
}

interface Prepared {
  panel: Panel;
  data: DataFrame[];
  fieldConfig: FieldConfigSource;
  theme: GrafanaTheme2;
}

async function prepared(
  panel: Panel,
  answers: Record<string, Series[]>,
  step: number,
  theme: GrafanaTheme2
): Promise<Prepared> {
  const frames = panel.targets.flatMap((target) => {
    const series = answers[target.refId] ?? [];
    return target.format === 'table' ? [table(target, series)] : series.map((one) => line(target, one, step));
  });
  const transformed = await firstValueFrom(transformDataFrame(panel.transformations ?? [], frames));
  const { defaults, overrides } = panel.fieldConfig;
  const usual = ofType(panel.type);
  const fieldConfig = { defaults: { ...usual, ...defaults, custom: { ...usual.custom, ...defaults.custom } }, overrides };
  const data = applyFieldOverrides({ data: transformed, fieldConfig, replaceVariables, theme, timeZone });
  // A table has no other names for its columns.
  cacheFieldDisplayNames(data);
  return { panel, data, fieldConfig, theme };
}

/** Questions have no variables in them any more, and titles never had. */
const replaceVariables = (text: string) => text;
/** The same wherever this is drawn. */
const timeZone = 'utc';

/** What Grafana fills in where a panel of this kind says nothing. */
function ofType(type: string): FieldConfigSource['defaults'] {
  const thresholds = { mode: ThresholdsMode.Absolute, steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] };
  const isLine = type === 'timeseries';
  const custom = isLine ? { drawStyle: 'line', lineWidth: 1, fillOpacity: 0, showPoints: 'auto', pointSize: 5 } : {};
  return { mappings: [], thresholds, color: { mode: isLine ? 'palette-classic' : 'thresholds' }, custom };
}

function line({ refId, legendFormat }: Target, series: Series, step: number): DataFrame {
  const points = 'values' in series ? series.values : [series.value];
  const displayNameFromDS = legendFormat ? renderLegendFormat(legendFormat, series.metric) : undefined;
  return toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000), config: { interval: step } },
      {
        name: 'Value',
        type: FieldType.number,
        labels: series.metric,
        values: points.map(([, value]) => number(value)),
        config: { displayNameFromDS },
      },
    ],
  });
}

/** What is no number, or infinite, is a gap: one such point, and nothing else would be drawn either. */
function number(text: string): number | null {
  const value = Number(text);
  return Number.isFinite(value) ? value : null;
}

/** A row for each series, a column for each label. */
function table({ refId }: Target, series: Series[]): DataFrame {
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const points = series.map((one) => ('values' in one ? one.values[one.values.length - 1] : one.value));
  return toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000) },
      ...labels.map((name) => ({ name, type: FieldType.string, values: series.map(({ metric }) => metric[name] ?? '') })),
      { name: 'Value', type: FieldType.number, values: points.map(([, value]) => number(value)) },
    ],
  });
}

interface Size {
  width: number;
  height: number;
}

function Drawing({ panel, data, fieldConfig, theme, timeRange, ...size }: Prepared & Size & { timeRange: TimeRange }) {
  const { type, options } = panel;
  if (data.every((frame) => frame.length === 0)) {
    return <div data-nothing style={{ ...size, display: 'grid', placeItems: 'center' }}>No data</div>;
  }
  if (type === 'timeseries') {
    const legend = { calcs: [], ...options.legend };
    // A line does not go on where points are missing.
    const frames = data.map((frame) => applyNullInsertThreshold({ frame }));
    return <TimeSeries frames={frames} timeRange={timeRange} timeZone={timeZone} legend={legend} options={options} {...size} />;
  }
  if (type === 'table') {
    return <TableNG data={data[0]} structureRev={1} {...size} />;
  }
  const Value = VALUES[type];
  if (!Value) {
    throw new Error(`xtask/tools/grafana/dashboard.tsx cannot draw a ${type}, as ${JSON.stringify(panel.title)} is`);
  }
  const { reduceOptions } = options;
  const about = { data, reduceOptions, fieldConfig, replaceVariables, theme, timeZone };
  return (
    <VizRepeater
      source={data}
      renderCounter={0}
      getValues={() => getFieldDisplayValues(about)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={(one) => <Value {...one} options={options} theme={theme} />}
      orientation={options.orientation ?? VizOrientation.Auto}
      minVizHeight={options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
      autoGrid
      {...size}
    />
  );
}

type OneValue = VizRepeaterRenderValueProps<FieldDisplay, DisplayValueAlignmentFactors> & { options: any; theme: GrafanaTheme2 };

const VALUES: Record<string, (props: OneValue) => React.JSX.Element> = {
  stat: ({ value, options: { colorMode, graphMode, textMode, text }, ...rest }) => (
    <div data-value>
      <BigValue value={value.display} colorMode={colorMode} graphMode={graphMode} textMode={textMode} text={text} {...rest} />
    </div>
  ),
  bargauge: ({ value, options: { displayMode, namePlacement, text }, ...rest }) => (
    <BarGauge
      value={value.display}
      field={value.field}
      display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0)}
      displayMode={displayMode}
      namePlacement={namePlacement}
      text={text}
      showUnfilled
      {...rest}
    />
  ),
};

/** As soon as all panels show what they have to show, or after a while what there is then. */
async function seen(panels: Panel[]): Promise<Shown[]> {
  const end = performance.now() + 30_000;
  const sections = () => [...document.querySelectorAll<HTMLElement>('section[data-title]')];
  // Fetched by Grafana's components, which draw them some time later.
  const icons = () => document.querySelectorAll('svg[data-testid="icon-info-circle"]').length;
  const isDone = () =>
    sections().length === panels.length &&
    sections().every((section) => hasData(section) || section.querySelector('[data-nothing]')) &&
    icons() === panels.filter(({ description }) => description).length;
  while (!isDone() && performance.now() < end) {
    await frame();
  }
  // What is there now is painted in the next frame.
  await frame();
  await frame();
  return sections().map((section) => ({
    title: section.dataset.title!,
    type: section.dataset.type!,
    hasData: hasData(section),
    isTitleCut: [...section.querySelectorAll('h2')].some((title) => title.scrollWidth > title.clientWidth),
  }));
}

const frame = () => new Promise(requestAnimationFrame);

function hasData(section: HTMLElement): boolean {
  const texts = (selector: string) => [...section.querySelectorAll(selector)].map(({ textContent }) => textContent ?? '');
  switch (section.dataset.type) {
    case 'timeseries':
      const legend = texts('[data-testid^="data-testid VizLegend series"]');
      return legend.length > 0 && [...section.querySelectorAll('canvas')].some(hasColour);
    case 'table':
      return texts('[role="gridcell"]').some((text) => text.trim() !== '');
    default:
      return texts('[data-value], [data-testid="data-testid Bar gauge value"]').some((text) => /\d/.test(text));
  }
}

/** Lines have colours. Axes, which are drawn without any line as well, have none. */
function hasColour(canvas: HTMLCanvasElement): boolean {
  const { width, height } = canvas;
  if (width * height === 0) {
    return false;
  }
  const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true })!;
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue, alpha] = data.subarray(at, at + 4);
    if (alpha > 60 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) {
      return true;
    }
  }
  return false;
}
