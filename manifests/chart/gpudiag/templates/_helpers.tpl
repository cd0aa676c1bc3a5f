{{/* Labels of an object. Argument: (list $ "name"), the name being a part's. */}}
{{- define "gpudiag.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: gpudiag
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Image. Argument: (list $ part). A digest wins over the tag. */}}
{{- define "gpudiag.image" -}}
{{- $root := index . 0 -}}
{{- $image := (index . 1).image -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* Flags as environment variables. Argument: a map of flags. */}}
{{- define "gpudiag.settings" -}}
{{- range $flag, $value := . }}
- name: GPUDIAG_{{ $flag | upper | replace "-" "_" }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* What every Pod of ours may be given. Argument: (list $ part). */}}
{{- define "gpudiag.scheduling" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Pod security context that `restricted` accepts. OpenShift chooses the ids itself. */}}
{{- define "gpudiag.restrictedPod" -}}
runAsNonRoot: true
{{- if not .Values.openshift.enabled }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gpudiag.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Secret of the agents' certificate. */}}
{{- define "gpudiag.agentSecret" -}}
{{- with .Values.agentAPI.tls }}{{ if eq .mode "secret" }}{{ .secretName }}{{ else }}gpudiag-agent-tls{{ end }}{{ end -}}
{{- end }}

{{/* Probes of an HTTP server. */}}
{{- define "gpudiag.probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: {{ .port | default "http" }}
  initialDelaySeconds: 10
  periodSeconds: {{ .period }}
  timeoutSeconds: 5
  failureThreshold: {{ .failures }}
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ .port | default "http" }}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{/* ServiceAccount. Argument: (list $ name part automount). */}}
{{- define "gpudiag.serviceAccount" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "gpudiag.labels" (list $root (index . 1)) | nindent 4 }}
  {{- with (index . 2).serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Binding of a role to a service account of the same installation. Argument: (list $ kind role account part name). */}}
{{- define "gpudiag.binding" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ index . 2 }}
  {{- if eq $kind "Role" }}
  namespace: {{ $root.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "gpudiag.labels" (list $root (index . 3)) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 3 }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
