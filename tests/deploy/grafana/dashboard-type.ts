// The type of deploy/monitoring/grafana/dashboard.json, made of Grafana's own types (@grafana/schema). tsc then refuses
// names that Grafana does not know and values that it does not take. What Grafana fills in may be missing.
import type { AnnotationQuery, Dashboard, DataQuery, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON holds an enum's value and not its name.
type Json<T> = T extends string
  ? `${T}`
  : T extends (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Key in keyof T]: Json<T[Key]> }
      : T;

type Some<T> = T extends (infer Item)[] ? Item[] : T extends object ? { [Key in keyof T]?: Some<T[Key]> } : T;

// The Prometheus data source's part of a query and of an annotation, which @grafana/schema has not.
interface PrometheusQuery extends DataQuery {
  datasource?: { type: "prometheus"; uid: string };
  expr: string;
  format?: "time_series" | "heatmap" | "table";
  legendFormat?: string;
  interval?: string;
}
interface PrometheusAnnotation extends AnnotationQuery<PrometheusQuery> {
  titleFormat?: string;
  textFormat?: string;
}

interface PanelOf<Type extends string, Options, Field> extends Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> {
  type: Type;
  options: Some<Options>;
  fieldConfig: Omit<FieldConfigSource, "defaults"> & {
    defaults: Omit<FieldConfigSource["defaults"], "custom"> & { custom?: Some<Field> };
  };
  targets: PrometheusQuery[];
}

export type CheckedDashboard = Json<
  Omit<Dashboard, "panels" | "annotations"> & {
    panels: (
      | RowPanel
      | PanelOf<"heatmap", heatmap.Options, heatmap.FieldConfig>
      | PanelOf<"stat", stat.Options, never>
      | PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>
    )[];
    annotations: { list: PrometheusAnnotation[] };
  }
>;
