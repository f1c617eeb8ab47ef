/* A stand-in of the Jetson's camera source: a live push source of NV12 frames in the GPU's memory.

   STUB_ARGUS names a folder with a file per sensor, named by its number; without its file a sensor is absent, which ends the stream at
   once, without an error, as on a board ("No cameras available", then EOS). The file's word, read before each frame, says what the
   sensor does: "on", "end" (nvargus-daemon died), "error" or "hang".
   A frame is dark, and bright in the first quarter of rows and columns; its brightness tells frames apart. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmm.h"

typedef struct {
    GstPushSrc base;
    gint sensor, width, height, numerator, denominator;
    guint64 frames;
    gboolean unlocked;
} Camera;
typedef struct {
    GstPushSrcClass base;
} CameraClass;

static GType camera_get_type(void);
G_DEFINE_TYPE(Camera, camera, GST_TYPE_PUSH_SRC)

static void read_word(Camera *self, char *word, size_t size) {
    const char *folder = getenv("STUB_ARGUS");
    char path[4096];
    snprintf(path, sizeof path, "%s/%d", folder ? folder : "/nonexistent", self->sensor);
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(word, 1, size - 1, file) : 0;
    word[length] = 0;
    word[strcspn(word, "\n")] = 0;
    if (file) fclose(file);
}

static GstFlowReturn camera_create(GstPushSrc *base, GstBuffer **buffer) {
    Camera *self = (Camera *)base;
    char word[16];
    read_word(self, word, sizeof word);
    if (!strcmp(word, "error")) {
        GST_ELEMENT_ERROR(self, RESOURCE, READ, ("the sensor failed"), (NULL));
        return GST_FLOW_ERROR;
    }
    while (!strcmp(word, "hang")) {
        if (g_atomic_int_get(&self->unlocked)) return GST_FLOW_FLUSHING;
        g_usleep(10000);
        read_word(self, word, sizeof word);
    }
    if (strcmp(word, "on")) return GST_FLOW_EOS;
    g_usleep(G_USEC_PER_SEC * (guint64)self->denominator / (guint64)self->numerator);

    size_t luma = (size_t)self->width * self->height, chroma = luma / 2;
    guint8 *data = g_malloc(luma + chroma);
    memset(data, 32, luma);
    memset(data + luma, 128, chroma);
    for (gint row = 0; row < self->height / 4; row++)
        memset(data + (size_t)row * self->width, 160 + (int)(self->frames % 16) * 4, self->width / 4);
    self->frames++;
    *buffer = gst_buffer_new_wrapped(data, luma + chroma);
    return GST_FLOW_OK;
}

static gboolean camera_set_caps(GstBaseSrc *base, GstCaps *caps) {
    Camera *self = (Camera *)base;
    GstStructure *structure = gst_caps_get_structure(caps, 0);
    return gst_structure_get_int(structure, "width", &self->width) && gst_structure_get_int(structure, "height", &self->height) &&
           gst_structure_get_fraction(structure, "framerate", &self->numerator, &self->denominator);
}

/* Notes that the sensor was opened, in the file N.opened: a real one takes a second for it. */
static gboolean camera_start(GstBaseSrc *base) {
    const char *folder = getenv("STUB_ARGUS");
    char path[4096];
    snprintf(path, sizeof path, "%s/%d.opened", folder ? folder : "/nonexistent", ((Camera *)base)->sensor);
    FILE *file = fopen(path, "a");
    if (file) {
        fputs("opened\n", file);
        fclose(file);
    }
    return TRUE;
}

static gboolean camera_unlock(GstBaseSrc *base) {
    g_atomic_int_set(&((Camera *)base)->unlocked, TRUE);
    return TRUE;
}

static gboolean camera_unlock_stop(GstBaseSrc *base) {
    g_atomic_int_set(&((Camera *)base)->unlocked, FALSE);
    return TRUE;
}

static void camera_set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    (void)id, (void)spec;
    ((Camera *)object)->sensor = g_value_get_int(value);
}

static void camera_class_init(CameraClass *class) {
    GstElementClass *element = GST_ELEMENT_CLASS(class);
    GObjectClass *object = G_OBJECT_CLASS(class);
    GstCaps *caps = gst_caps_from_string(
        "video/x-raw(" NVMM "), width = (int) [1, MAX], height = (int) [1, MAX], format = (string) { NV12, P010_10LE }, "
        "framerate = (fraction) [0, MAX]");
    gst_element_class_add_pad_template(element, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
    gst_caps_unref(caps);
    gst_element_class_set_static_metadata(element, "stand-in", "Video/Capture", "stand-in", "edge-resnet tests");
    object->set_property = camera_set_property;
    g_object_class_install_property(
        object, 1, g_param_spec_int("sensor-id", NULL, NULL, 0, 255, 0, G_PARAM_WRITABLE | G_PARAM_STATIC_STRINGS));
    GST_PUSH_SRC_CLASS(class)->create = camera_create;
    GST_BASE_SRC_CLASS(class)->set_caps = camera_set_caps;
    GST_BASE_SRC_CLASS(class)->start = camera_start;
    GST_BASE_SRC_CLASS(class)->unlock = camera_unlock;
    GST_BASE_SRC_CLASS(class)->unlock_stop = camera_unlock_stop;
}

static void camera_init(Camera *self) {
    gst_base_src_set_live(GST_BASE_SRC(self), TRUE);
    gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME);
    gst_base_src_set_do_timestamp(GST_BASE_SRC(self), TRUE);
}

static gboolean init(GstPlugin *plugin) {
    return gst_element_register(plugin, "nvarguscamerasrc", GST_RANK_PRIMARY, camera_get_type());
}

STANDIN(nvarguscamerasrc, init)
